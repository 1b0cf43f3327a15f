"""`osim midtrain` and `osim rl` composed: check, prepare the run folder, start the ranks, follow their metrics.

Runs in the process of the command, which holds the folder's lock; the ranks (`python -m megatron_osim.worker` or
`rl.worker`) read RUN/config.yaml. What can be seen to be wrong is refused before a folder or process exists. Running
again on a finished folder trains nothing: the ranks find their last step saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.errors import DataError, UsageError
from common.run_folder import RunFolder
from launch.kinds import midtrain_worker
from launch.local import run_local
from launch.progress import MetricsTail, show
from megatron_osim.config import ArchitectureConfig, MidtrainConfig
from megatron_osim.epochs import with_steps
from megatron_osim.layout import check_layout
from rl.config import RLConfig


def midtrain(config: MidtrainConfig, folder: Path, ranks: int) -> RunFolder:
    """Train to the end on `ranks` local processes. Raises what the ranks raise, Interrupted after a stop request."""
    shards = check_shards(config)
    config = with_steps(config)
    if config.generation is not None:
        from launch.midtrain_worker import evaluation_config

        evaluation_config(config.generation, folder)  # a wrong recipe is told now, not at the first evaluation
    from megatron_osim.runtime.capability import detect_capability  # torch: only when all else is well

    check_layout(
        config.resolve_architecture(),
        config.parallel,
        world_size=ranks,
        capability=detect_capability(),
        global_batch=config.global_batch,
        fp8=config.fp8,
    )
    return _run(midtrain_worker(config), config, folder, ranks, config.steps, "midtrain", shards)


def rl(config: RLConfig, folder: Path, ranks: int) -> RunFolder:
    """Train to the end on `ranks` local processes; rank 0 also starts the rollout engine."""
    from launch.evaluation import weights_hash

    for task in config.tasks:
        task.resolve().rows(task.split, 1, task.rows_seed)  # rows that are not here are told before an engine starts
    architecture = ArchitectureConfig.from_hf_config(config.model)
    if not (config.model / "tokenizer.json").is_file():
        raise UsageError(
            "no tokenizer.json here", where=str(config.model), fix="put the tokenizer beside the weights"
        )
    from megatron_osim.runtime.capability import detect_capability

    check_layout(architecture, config.parallel, world_size=ranks, capability=detect_capability())
    return _run("rl.worker", config, folder, ranks, config.steps, "rl", {"model": weights_hash(config.model)})


def check_shards(config: MidtrainConfig) -> dict[str, str]:
    """Content keys by prefix of all shards that the run reads. Raises DataError for a damaged shard or another
    tokenizer than the run's."""
    from data_tools.packed import PackedShard
    from data_tools.renderer import Renderer

    tokenizer = config.tokenizer or config.init_from
    vocab_size = config.resolve_architecture().vocab_size
    keys = {}
    for source in (*config.data.sources, *config.data.validation):
        for prefix in source.prefixes:
            manifest = PackedShard.open(prefix, sequence_length=config.data.sequence_length).manifest
            made_with = manifest.tokenizer
            if tokenizer and Renderer.load(tokenizer, made_with.template).fingerprint != made_with.fingerprint:
                raise DataError(
                    f"made with another tokenizer ({made_with.folder}) than this run's ({tokenizer})",
                    where=str(prefix),
                    fix="set `tokenizer` to the one that made the shard, or prepare the shard again with this one",
                )
            if made_with.vocab_size > vocab_size:
                raise DataError(
                    f"its tokenizer has {made_with.vocab_size} entries, the model {vocab_size}",
                    where=str(prefix),
                    fix=f"set architecture.vocab_size to at least {made_with.vocab_size}",
                )
            keys[str(prefix)] = manifest.key
    return keys


def _run(
    module: str,
    config: MidtrainConfig | RLConfig,
    folder: Path,
    ranks: int,
    steps: int,
    phase: str,
    inputs: Mapping[str, str],
) -> RunFolder:
    with RunFolder(folder).lock(), show(f"{folder.name} step") as update:
        run = RunFolder.prepare(folder, config, inputs=inputs)  # not under a run that is still alive
        tail = MetricsTail(run.metrics, phase, steps, update)
        run_local(module, folder, ranks, on_poll=tail.poll)
    return run
