"""RL as one heterogeneous job: actor, rollout server and coordinator on nodes of their own, with a real SGLang."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.files import read_json
from common.run_folder import RunFolder
from tests.rl.rollout.conftest import write_checkpoint
from tests.slurm.conftest import Osim, history

pytestmark = [pytest.mark.slurm, pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "hf", seed=3)


def test_actor_rollout_server_and_coordinator_run_as_one_heterogeneous_job(osim: Osim, model: Path) -> None:
    recipe = osim.file(
        "recipe.yaml",
        {
            "model": str(model),
            "tasks": [{"task": "tests.rl.letters:spec", "algorithm": {"name": "grpo"}}],
            "steps": 2,
            "groups_per_step": 2,
            "samples_per_prompt": 3,
            "max_tokens_per_micro_batch": 128,
            "sampling": {"max_tokens": 12, "max_context_tokens": 256},
            "rollout": {"kind": "sglang", "start_timeout_s": 400, "max_context": 256},
            "optimizer": {"lr": 1e-3, "schedule": "constant"},
        },
    )
    run = osim.folder / "run"
    told = osim(
        "launch", "rl", "--recipe", recipe, "--cluster", osim.cluster(), "--out", run, "--wait",
        "--nodes", 1, "--rollout-nodes", 1, timeout_s=800,
    )  # fmt: skip
    assert "COMPLETED" in told
    assert history(run)[-1] == "ended 0"
    steps = RunFolder(run).read_metrics("rl")
    assert [line["step"] for line in steps] == [0, 1] or [line["step"] for line in steps] == [1, 2]
    assert all(line["gap/max"] < 1e-4 for line in steps)
    (notes,) = (run / "launch").glob("attempt-*")
    (url,) = read_json(notes / "servers.json")["urls"]
    assert read_json(notes / "health.json") | {"time": 0} == {"time": 0, "servers": [url], "silent_since": {}}
    assert (run / "hf" / "model.safetensors").is_file()
    assert "1 rollout servers answer" in (run / "logs" / "coordinator0.log").read_text()
