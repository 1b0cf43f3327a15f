"""`osim midtrain` and `osim rl` composed: prepare the run folder, start the ranks, follow their metrics.

Runs in the process of the command, which holds the folder's lock; the ranks (`python -m megatron_osim.worker` or
`rl.worker`) read RUN/config.yaml. Running again on a finished folder starts nothing new: the workers find their last
step saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from common.run_folder import RunFolder
from launch.local import run_local
from launch.progress import MetricsTail, show
from megatron_osim.config import MidtrainConfig
from rl.config import RLConfig


def midtrain(config: MidtrainConfig, folder: Path, ranks: int) -> RunFolder:
    """Train to the end on `ranks` local processes. Raises what the ranks raise, Interrupted after a stop request."""
    from data_tools.manifest import Manifest

    sources = (*config.data.sources, *config.data.validation)
    inputs = {str(prefix): Manifest.read(prefix).key for source in sources for prefix in source.prefixes}
    return _run("megatron_osim.worker", config, folder, ranks, config.steps, "midtrain", inputs)


def rl(config: RLConfig, folder: Path, ranks: int) -> RunFolder:
    """Train to the end on `ranks` local processes; rank 0 also starts the rollout engine."""
    return _run("rl.worker", config, folder, ranks, config.steps, "rl", {})


def _run(
    module: str, config: BaseModel, folder: Path, ranks: int, steps: int, phase: str, inputs: Mapping[str, str]
) -> RunFolder:
    run = RunFolder.prepare(folder, config, inputs=inputs)
    with run.lock(), show(f"{folder.name} step") as update:
        tail = MetricsTail(run.metrics, phase, steps, update)
        run_local(module, folder, ranks, on_poll=tail.poll)
    return run
