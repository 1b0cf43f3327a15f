"""Before the expensive part: prepare the run folder, then see that the allocation is what the run needs.

`python -m launch.allocation.preflight RUN NOTES`, on every rank of a training job (env:// rendezvous), or as one
process where the job is one. Rank 0 prints one line a check, writes RUN/launch/preflight.json and decides: exit 2 for
what is missing or wrong, 3 for a bound that does not hold. Data is checked once a run, not again after a requeue.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from common.errors import ExitCode, GateError, OsimError, UsageError, run_main
from common.files import write_json
from common.run_folder import RunFolder
from data_tools.config import PrepareConfig
from launch.allocation import checks
from launch.allocation.checks import GIB, Check
from launch.allocation.config import FOLDER, AllocationConfig, read_allocation, recipe_of
from launch.evaluation import EvalRunConfig, weights_hash
from launch.kinds import RECIPE_OF, load_recipe
from megatron_osim.config import ArchitectureConfig, MidtrainConfig
from rl.config import RLConfig

REPORT = "preflight.json"
NCCL_ONE_NODE_GB_PER_S, NCCL_GB_PER_S, GLOO_GB_PER_S = 100.0, 20.0, 0.005
ALLREDUCE_ROUNDS = 5
CHECKPOINT_BYTES_PER_PARAMETER = 14
"""Of what is trained: bf16 weights, fp32 master weights and two moments; 12 in fp32."""
CHECKPOINTS_AT_ONCE = 2
DISK_FLOOR_GIB = 1.0


def main() -> None:
    """All checks that this process is there for; rank 0 tells what came of them."""
    run, _notes = Path(sys.argv[1]), Path(sys.argv[2])
    allocation = read_allocation(run)
    if not allocation.preflight.enabled:
        found = _prepared(run, allocation)[0] if os.environ.get("RANK", "0") == "0" else None
    elif "RANK" in os.environ:
        found = _on_all_ranks(run, allocation)
    else:
        found = [*_on_this_node(allocation), *_once(run, allocation), *_data(run, allocation, 0, 1)]
    if found is None:  # another rank than the first
        return
    write_json(run / FOLDER / REPORT, {"time": time.time(), "checks": [c.plain() for c in found]})
    for check in found:
        print(check.line(), flush=True)
    failed = [c for c in found if not c.ok]
    if failed:
        _fail(failed)


def _fail(failed: list[Check]) -> None:
    text = "the allocation is not fit for the run\n" + "\n".join(f"  - {c.line()}" for c in failed)
    if any(c.exit_code == ExitCode.USAGE for c in failed):
        raise UsageError(text, where="preflight")
    raise GateError(text, where="preflight")


def _on_all_ranks(run: Path, allocation: AllocationConfig) -> list[Check] | None:
    """All checks of all ranks on rank 0, None elsewhere. Nobody hangs: one deadline for the whole job."""
    import torch
    import torch.distributed as dist

    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    nodes = int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"])
    if cuda := torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    timeout = timedelta(seconds=allocation.preflight.timeout_s)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timeout)
    try:
        mine: list[Check] = []
        if local_rank == 0:
            node = int(os.environ.get("GROUP_RANK", "0"))
            mine += [*_on_this_node(allocation), *_data(run, allocation, node, nodes)]
        if rank == 0:
            mine += _once(run, allocation)
        bandwidth = _allreduce(allocation, nodes, cuda=cuda)
        gathered: list[list[Check]] | None = [[] for _ in range(dist.get_world_size())] if rank == 0 else None
        dist.gather_object(mine, gathered, 0)
        return None if gathered is None else [*(c for one in gathered for c in one), *bandwidth]
    finally:
        dist.destroy_process_group()


def _on_this_node(allocation: AllocationConfig) -> Iterator[Check]:
    if allocation.gpus_per_node and allocation.kind != "data":
        import torch

        yield checks.visible_gpus(torch.cuda.device_count(), allocation.gpus_per_node, socket.gethostname())


def _allreduce(allocation: AllocationConfig, nodes: int, *, cuda: bool) -> list[Check]:
    """Bus bandwidth 2 (n - 1) / n * bytes / time, of the fastest of a few rounds."""
    import torch
    import torch.distributed as dist

    n = dist.get_world_size()
    if n == 1:
        return []
    options = allocation.preflight
    mib = options.allreduce_mib if cuda else max(1, options.allreduce_mib // 16)
    tensor = torch.ones(mib * 2**18, device="cuda" if cuda else "cpu")
    best = float("inf")
    for _ in range(ALLREDUCE_ROUNDS):
        dist.barrier()
        started = time.monotonic()
        dist.all_reduce(tensor)
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    default = GLOO_GB_PER_S if not cuda else NCCL_ONE_NODE_GB_PER_S if nodes == 1 else NCCL_GB_PER_S
    bound = options.min_allreduce_gb_per_s or default
    return [checks.allreduce(2 * (n - 1) / n * tensor.nbytes / best / 1e9, bound, n, "nccl" if cuda else "gloo")]


def _once(run: Path, allocation: AllocationConfig) -> list[Check]:
    """What one process finds out for all: the recipe, the folder, the disk, the endpoints."""
    options = allocation.preflight
    found, recipe = _prepared(run, allocation)
    if recipe is None:
        return found
    needed = options.min_disk_free_gib
    found.append(checks.disk_space(run, checkpoints_gib(recipe, run) if needed is None else needed))
    if options.min_disk_mib_per_s is not None:
        found.append(checks.disk_speed(run, options.disk_mib, options.min_disk_mib_per_s))
    client = recipe.client if isinstance(recipe, RLConfig | EvalRunConfig) else None
    if isinstance(recipe, EvalRunConfig) and recipe.model.endpoint is not None:
        client = recipe.client.model_copy(update={"policy": recipe.model.endpoint})
    if client is not None:
        found += checks.endpoints(client, os.environ, options.endpoint_timeout_s)
    rollout = recipe.rollout if isinstance(recipe, RLConfig) else None
    if rollout is not None:
        found += checks.rollout_servers(rollout, os.environ, options.endpoint_timeout_s)
    return found


def _prepared(run: Path, allocation: AllocationConfig) -> tuple[list[Check], BaseModel | None]:
    """The recipe, after the run folder was made; None when something is wrong with either."""
    name = "recipe and inputs"
    try:
        recipe = load_recipe(RECIPE_OF[allocation.kind], recipe_of(run))
        _prepare(run, recipe)
    except OsimError as e:
        return [Check(name, False, str(e), exit_code=int(e.exit_code))], None
    return [Check(name, True, str(recipe_of(run)))], recipe


def _prepare(run: Path, recipe: BaseModel) -> None:
    """Make the run folder of a training run, as `osim midtrain` and `osim rl` do; the others make their own."""
    from launch.training import check_shards

    if isinstance(recipe, MidtrainConfig):
        RunFolder.prepare(run, recipe, inputs=check_shards(recipe))
    elif isinstance(recipe, RLConfig):
        if not (recipe.model / "tokenizer.json").is_file():
            raise UsageError("no tokenizer.json here", where=str(recipe.model), fix="give an exported model")
        RunFolder.prepare(run, recipe, inputs={"model": weights_hash(recipe.model)})
    elif isinstance(recipe, EvalRunConfig) and recipe.model.path is not None and not recipe.model.path.exists():
        raise UsageError("no model here", where=str(recipe.model.path), fix="give an export or a run folder")


def _data(run: Path, allocation: AllocationConfig, node: int, nodes: int) -> list[Check]:
    """This node's part of the data files, once a run."""
    if allocation.kind != "midtrain" or os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        return []
    try:
        recipe = load_recipe("midtrain", recipe_of(run))
        assert isinstance(recipe, MidtrainConfig)
        sources = (*recipe.data.sources, *recipe.data.validation)
        prefixes = sorted({prefix for source in sources for prefix in source.prefixes})
        files = list(checks.data_files(prefixes))[node::nodes]
    except OsimError as e:
        return [Check("dataset", False, str(e), exit_code=int(e.exit_code))]
    return [checks.checksums(files, allocation.preflight.checksum_gib * GIB / nodes)]


def checkpoints_gib(recipe: BaseModel, run: Path) -> float:
    """Room for the checkpoints that will exist at one time, beside those that a resumed run has already."""
    match recipe:
        case MidtrainConfig():
            architecture = recipe.resolve_architecture()
        case RLConfig():
            architecture = ArchitectureConfig.from_hf_config(recipe.model)
        case PrepareConfig() | EvalRunConfig() | _:
            return DISK_FLOOR_GIB
    kept = max(CHECKPOINTS_AT_ONCE, recipe.checkpoint.keep_last + 1)
    missing = max(1, kept - len(list((run / "checkpoints").glob("step-*"))))
    return DISK_FLOOR_GIB + missing * checkpoint_bytes(recipe, architecture) / GIB


def checkpoint_bytes(recipe: MidtrainConfig | RLConfig, architecture: ArchitectureConfig) -> int:
    """One checkpoint. With LoRA the base is in it as weights alone; masters and moments are the adapters'. Beside it
    lies the running average of the weights (RUN/averages), where the run keeps one."""
    weights = architecture.num_parameters * (2 if recipe.precision == "bf16" else 4)
    trained, beside = architecture.num_parameters, 0
    if isinstance(recipe, RLConfig):
        if recipe.lora is not None:
            trained, beside = architecture.num_hidden_layers * recipe.lora.layer_parameters(architecture), weights
        beside += weights if recipe.ema_decay is not None else 0
    return beside + trained * CHECKPOINT_BYTES_PER_PARAMETER


if __name__ == "__main__":
    run_main(main)
