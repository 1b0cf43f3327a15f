"""Every process of a step: `python -m launch.allocation.rank RUN NOTES NAME MODULE ARGS…` runs MODULE.

Its output goes to RUN/logs/NAME<rank>.log (appended, so that attempts follow one another). An end other than 0 leaves
NOTES/failed-<code>-NAME<rank>, because torchrun and srun fold the exit codes of their processes, and ours have a
meaning. A failing process waits a little before it ends, so that the others can still say what they saw.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
import traceback
from pathlib import Path

from common.errors import ExitCode

PEER_GRACE_S = 4.0
CRASH = 1


def label(name: str, environment: dict[str, str]) -> str:
    """NAME and the number of this process; tasks of an array have their own."""
    number = environment.get("RANK") or environment.get("SLURM_PROCID", "0")
    task = environment.get("SLURM_ARRAY_TASK_ID")
    return f"{name}{number}" if task is None else f"{name}{number}-task{task}"


def run(module: str, arguments: list[str]) -> int:
    """The exit code of `python -m MODULE ARGUMENTS`; a traceback is printed, as Python would."""
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as e:
        if isinstance(e.code, str):
            print(e.code, file=sys.stderr)
        return e.code if isinstance(e.code, int) else 0 if e.code is None else CRASH
    except BaseException:  # noqa: BLE001 - the boundary of the process: what Python would do at its end
        traceback.print_exc()
        return CRASH
    return 0


def main() -> None:
    """Run MODULE, log and exit code kept."""
    run_dir, notes, name, module, *arguments = sys.argv[1:]
    own = label(name, dict(os.environ))
    log = os.open(Path(run_dir) / "logs" / f"{own}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = run(module, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        (Path(notes) / f"failed-{code}-{own}").touch()
        if code != ExitCode.INTERRUPTED:
            time.sleep(PEER_GRACE_S)
    sys.exit(code)


if __name__ == "__main__":
    main()
