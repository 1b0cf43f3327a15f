"""One quickstart from beginning to end, in the process of the command: lock the folder, run the stages, sum up.

Ctrl-C and SIGTERM end it with exit 4 and the command that resumes; ranks and servers end with it.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import Interrupted
from common.redact import redact
from common.run_folder import RunFolder
from launch.memory import PeakMemory
from launch.quickstart.config import Folders, resolve
from launch.quickstart.pipeline import Done, Pipeline
from launch.quickstart.stages import stages
from launch.quickstart.summary import print_summary


def run(recipe: Path, overrides: Sequence[str], folder: Path) -> list[Done]:
    """Run what is unfinished in `folder`."""
    config = resolve(recipe, overrides, folder)
    root = RunFolder.prepare(folder, config)
    with root.lock(), _interruptible(), PeakMemory() as memory:
        done = Pipeline(folder, stages(config, folder)).run()
    print_summary(config, Folders(folder), done, memory.peak_gib)
    return done


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is Ctrl-C; both become one Interrupted that names the command to resume."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as e:
        what = e.what if isinstance(e, Interrupted) else "interrupted"
        raise Interrupted(what, fix=f"resume with: {redact(shlex.join(['osim', *sys.argv[1:]]))}") from None
    finally:
        signal.signal(signal.SIGTERM, old)
