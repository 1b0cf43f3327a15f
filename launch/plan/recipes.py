"""The plan of a recipe file of any kind: what `osim plan` prints and `osim launch` asks before it submits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.config import load
from common.errors import OsimError, UsageError
from launch.plan.cluster import ClusterConfig
from launch.plan.midtrain import plan_midtrain
from launch.plan.report import Report
from launch.plan.rl import plan_rl
from megatron_osim.config import ArchitectureConfig, MidtrainConfig
from rl.config import RLConfig

PLANNED = ("midtrain", "rl")


def plan_recipe(
    kind: str,
    recipe: Path,
    overrides: Sequence[str],
    cluster: ClusterConfig,
    *,
    architecture: Path | None = None,
    exact: bool = True,
    with_data: bool = False,
) -> Report:
    """Judge a recipe on a cluster. Raises ConfigError for a recipe that is not valid.

    architecture: of the model, where its folder is not on this machine. with_data: shards that are missing or do not
    fit the recipe refuse it too.
    """
    if kind == "midtrain":
        config = load(MidtrainConfig, recipe, overrides)
        if architecture is not None:
            config = config.model_copy(update={"architecture": read_architecture(architecture), "init_from": None})
        report = plan_midtrain(config, cluster, exact=exact).report
        return _with_data(report, config) if with_data else report
    if kind == "rl":
        rl = load(RLConfig, recipe, overrides)
        return plan_rl(rl, cluster, read_architecture(architecture or rl.model), exact=exact).report
    raise UsageError(f"a {kind} recipe has no plan", where=str(recipe), fix=f"plans: {', '.join(PLANNED)}")


def read_architecture(path: Path) -> ArchitectureConfig:
    """A YAML file of ours, a config.json, or the folder that holds one."""
    if path.suffix in (".yaml", ".yml"):
        return load(ArchitectureConfig, path)
    if not path.exists():
        fix = "give --architecture FILE: a YAML of launch/recipes/architectures, or the model's config.json"
        raise UsageError("the model is not on this machine", where=str(path), fix=fix)
    return ArchitectureConfig.from_hf_config(path)


def _with_data(report: Report, config: MidtrainConfig) -> Report:
    from launch.training import check_shards

    try:
        check_shards(config)
    except OsimError as e:
        return replace(report, problems=(*report.problems, f"{e.where}: {e.what}; {e.fix}"))
    return report
