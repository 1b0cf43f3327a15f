"""Scripts for a cluster that is not here: golden texts, shellcheck, dry run, and what is refused before submission.

After an intended change, write the golden texts anew: `python -m tests.launch.test_submit_render`.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from common.config import load, validate
from common.errors import ConfigError, GateError, UsageError
from data_tools.config import PrepareConfig
from launch import cli
from launch.kinds import load_recipe
from launch.plan.cluster import ClusterConfig
from launch.submit import nemo
from launch.submit.config import ChainConfig, SlurmConfig, time_s
from launch.submit.jobs import Job, Site, Size, build, data_jobs, part_of
from launch.submit.sbatch import render
from launch.submit.submit import plan_chain, site_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "launch" / "recipes"
GOLDEN = Path(__file__).parent / "golden"
RUN = Path("/shared/runs/one")
H100 = load(ClusterConfig, RECIPES / "clusters" / "h100-8x8.yaml")
SITE = Site(H100, H100.slurm or SlurmConfig(), Path("/shared/osim"))


def jobs() -> dict[str, Job]:
    """One job of every shape."""
    midtrain = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml")
    rl = load_recipe("rl", RECIPES / "quickstart" / "grpo.yaml", ("model=/shared/models/midtrained",))
    evaluation = load_recipe("eval", RECIPES / "quickstart" / "eval.yaml", ("model.path=/shared/models/midtrained",))
    data = PrepareConfig.model_validate({"inputs": [{"glob": "c/*.jsonl"}], "tokenizer": "t", "output": "/shared/x"})
    time = SITE.slurm.time
    array, merge = data_jobs("data", data, RUN, SITE, 16, time)
    return {
        "midtrain-8x8": build("midtrain", "midtrain", midtrain, RUN, SITE, Size(8), 1, time)[0],
        "rl-4x8-4x8-cpu": build("rl", "rl", rl, RUN, SITE, Size(4, 4), 1, time)[0],
        "rl-colocated-8x8": build("rl", "rl", rl, RUN, SITE, Size(8), 1, time)[0],
        "eval": build("eval", "eval", evaluation, RUN, SITE, Size(1), 1, time)[0],
        "data-array": array,
        "data-merge": merge,
    }


JOBS = jobs()


@pytest.mark.parametrize("name", JOBS)
def test_script_is_the_golden_text(name: str) -> None:
    assert render(JOBS[name], SITE.slurm) == (GOLDEN / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_script_passes_shellcheck_and_bash(name: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(render(JOBS[name], SITE.slurm))
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("no shellcheck: install Debian's shellcheck")
    checked = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_names_with_spaces_and_quotes_stay_one_word(tmp_path: Path) -> None:
    odd = replace(JOBS["midtrain-8x8"], run_dir=Path("/shared/it's a $run"))
    settings = SITE.slurm.model_copy(update={"environment": {"NOTE": 'a "b" $c'}})
    script = tmp_path / "job.sh"
    script.write_text(render(odd, settings))
    subprocess.run(["bash", "-n", script], check=True)
    assert """export NOTE='a "b" $c'""" in script.read_text()
    assert """run='/shared/it'"'"'s a $run'""" in script.read_text()


def test_rollout_servers_take_all_gpus_of_their_nodes() -> None:
    (server,) = (s for s in JOBS["rl-4x8-4x8-cpu"].steps if s.name == "server")
    assert (server.nodes, server.per_node, server.component, server.overlap) == (4, 8, 1, False)
    (together,) = (s for s in JOBS["rl-colocated-8x8"].steps if s.name == "server")
    assert (together.nodes, together.component, together.overlap) == (8, 0, True)


def test_array_tasks_write_parts_that_the_merge_reads() -> None:
    main = JOBS["data-merge"].steps[-1]
    assert main.arguments[2:18] == tuple(str(part_of(Path("/shared/x"), n)) for n in range(16))
    assert JOBS["data-merge"].after == ("data",) and JOBS["data-array"].array == 16


def test_chain_knows_who_waits_for_whom() -> None:
    chain = load(ChainConfig, RECIPES / "chains" / "soul.yaml")
    planned = plan_chain(chain, RECIPES / "chains", Path("runs/soul"), SITE)
    after = {one.job.name: one.job.after for one in planned}
    assert after == {
        "data": (),
        "data-merge": ("data",),
        "midtrain": ("data-merge",),
        "convert": ("midtrain",),
        "rl": ("convert",),
        "eval": ("rl",),
    }


def test_a_midtraining_that_evaluates_itself_is_launched_with_the_worker_that_knows_tasks() -> None:
    overrides = ("generation={every_steps: 10, recipe: eval.yaml}",)
    recipe = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml", overrides)
    (job,) = build("midtrain", "m", recipe, RUN, SITE, Size(8), 1, SITE.slurm.time)
    assert job.steps[-1].module == "launch.midtrain_worker"
    assert jobs()["midtrain-8x8"].steps[-1].module == "megatron_osim.worker"


def test_a_stages_own_time_must_leave_room_for_the_warning(tmp_path: Path) -> None:
    stage = {"name": "m", "kind": "midtrain", "recipe": str(RECIPES / "midtrain-qwen3-8b.yaml"), "time": "00:06:00"}
    site = replace(SITE, slurm=SITE.slurm.model_copy(update={"signal_lead_s": 300}))
    with pytest.raises(ConfigError, match="less than twice signal_lead_s"):
        plan_chain(validate(ChainConfig, {"stages": [stage]}, where="test"), tmp_path, tmp_path / "out", site)


@pytest.mark.parametrize(
    ("flag", "asked"),
    [("gpus-per-node", (8, None)), ("gres", (None, "gpu:8")), ("whole-nodes", (None, None)), ("none", (None, None))],
)
def test_nemo_run_asks_for_gpus_as_the_site_wants_it(flag: str, asked: tuple[object, object]) -> None:
    site = replace(SITE, slurm=SITE.slurm.model_copy(update={"gpu_flag": flag}))
    recipe = load_recipe("eval", RECIPES / "quickstart" / "eval.yaml", ("model.path=/shared/models/midtrained",))
    (job,) = build("eval", "eval", recipe, RUN, site, Size(1), 1, site.slurm.time)
    executor = nemo.request(job, site.slurm, Path("/s.sh"), ())["executor"]
    assert (executor["gpus_per_node"], executor["gres"]) == asked


def test_whole_nodes_are_asked_for_no_gpus_and_have_them_all_the_same() -> None:
    recipe = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml")
    found = {}
    for flag in ("whole-nodes", "none"):
        site = replace(SITE, slurm=SITE.slurm.model_copy(update={"gpu_flag": flag}))
        (job,) = build("midtrain", "m", recipe, RUN, site, Size(8), 1, site.slurm.time)
        script = render(job, site.slurm)
        assert "--gpus-per-node" not in script and "--gres" not in script
        found[flag] = job.components[0].gpus_per_node
    assert found == {"whole-nodes": 8, "none": 0}


def test_dry_run_prints_the_script_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, chain, cluster = tmp_path / "run", RECIPES / "chains" / "soul.yaml", tmp_path / "cluster.yaml"
    cluster.write_text(f"extends: {RECIPES / 'clusters' / 'h100-8x8.yaml'}\nslurm: {{submit: sbatch}}\n")
    with pytest.raises(SystemExit) as ended:
        cli.run(["launch", "chain", str(chain), "--cluster", str(cluster), "--out", str(out), "--dry-run"])
    shown = capsys.readouterr().out
    assert not ended.value.code and not out.exists()
    assert "--dependency=afterok:<job id of convert> --kill-on-invalid-dep=yes" in shown.replace("'", "")
    assert shown.count("#!/bin/bash") == 6 and "#SBATCH hetjob" in shown


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"time": "4h"}, "hours:minutes:seconds"),
        ({"time": "00:05:00"}, "less than twice signal_lead_s"),
        ({"environment": {"OPENAI_API_KEY": "x"}}, "looks like a secret"),
        ({"environment": {"A B": "x"}}, "no variable name"),
        ({"sbatch_flags": {"Comment": "x"}}, "no long option"),
        ({"host": "login"}, "run_root"),
        ({"partitoin": "gpu"}, "partition"),
    ],
)
def test_wrong_site_is_refused_with_the_reason(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(SlurmConfig, settings, where="cluster.yaml")


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([{"name": "a", "kind": "convert", "source": "b"}], "no earlier stage"),
        ([{"name": "a", "kind": "data"}], "has a recipe"),
        ([{"name": "a b", "kind": "data", "recipe": "x"}], "letters, digits"),
        ([{"name": "a", "kind": "eval", "recipe": "x", "shards": 2}], "shards belong to data"),
        ([{"name": "a", "kind": "eval", "recipe": "x"}] * 2, "two stages"),
    ],
)
def test_wrong_chain_is_refused_with_the_reason(stages: list[dict[str, object]], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        validate(ChainConfig, {"stages": stages}, where="chain.yaml")


def test_illegal_layouts_and_what_cannot_fit_are_refused_before_submission(tmp_path: Path) -> None:
    from launch.submit.submit import _check_fits

    illegal = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml", ("parallel.tensor=3",))
    with pytest.raises(ConfigError, match="3"):
        build("midtrain", "m", illegal, RUN, SITE, Size(8), 1, "04:00:00")
    large = load_recipe("midtrain", RECIPES / "midtrain-qwen3-8b.yaml", ("data.sequence_length=1000000",))
    with pytest.raises(GateError, match=r"(?s)cannot run on this cluster.*1000000"):
        _check_fits(large, SITE, Size(8))


def test_rollout_nodes_for_an_embedded_engine_are_refused() -> None:
    rl = load_recipe("rl", RECIPES / "quickstart" / "grpo.yaml", ("model=/m", "rollout.kind=embedded"))
    with pytest.raises(UsageError, match="starts no server"):
        build("rl", "rl", rl, RUN, SITE, Size(4, 4), 1, "04:00:00")


def test_times_are_read_as_slurm_reads_them() -> None:
    assert time_s("1-02:03:04") == 93784 and time_s("00:10:00") == 600


def test_site_without_slurm_is_this_machine() -> None:
    assert site_of(ClusterConfig()).gpus_per_node == 0


def write_golden() -> None:
    for name, job in JOBS.items():
        (GOLDEN / f"{name}.sh").write_text(render(job, SITE.slurm))


if __name__ == "__main__":
    write_golden()
