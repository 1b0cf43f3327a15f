"""The actor gives the same log-probs and updates under every layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.files import read_json
from tests.rl import runs
from tests.rl.layout_program import LORA_LAYOUTS

OTHERS = ("tp2", "pp2", "dp2")
TOLERANCE = 1e-5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One start of two ranks that goes through every layout."""
    from tests.megatron_osim.spmd import start

    out = tmp_path_factory.mktemp("layouts")
    (out / "model.txt").write_text(str(model))
    start("tests.rl.layout_program", 2, out)
    return out


def weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file

    return {name: t.numpy() for name, t in load_file(folder / "hf" / "model.safetensors").items()}


@pytest.mark.parametrize("name", OTHERS)
def test_two_ranks_give_the_update_of_one(name: str, recorded: Path) -> None:
    reference, found = weights(recorded / "one"), weights(recorded / name)
    assert reference.keys() == found.keys()
    for key, value in reference.items():
        np.testing.assert_allclose(found[key], value, atol=TOLERANCE, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", OTHERS)
def test_log_probs_and_metrics_do_not_depend_on_the_layout(name: str, recorded: Path) -> None:
    for reference, found in zip(
        read_json(recorded / "one-0.json"), read_json(recorded / f"{name}-0.json"), strict=True
    ):
        for part in ("logprobs", "teacher"):
            for a, b in zip(reference[part], found[part], strict=True):
                np.testing.assert_allclose(b, a, atol=TOLERANCE, rtol=0)
        assert found["ids"] == reference["ids"] and found["ids"]
        for key, value in reference["update"]["means"].items():
            assert found["update"]["means"][key] == pytest.approx(value, abs=TOLERANCE), key
        assert found["update"]["grad_norm"] == pytest.approx(reference["update"]["grad_norm"], rel=TOLERANCE)


@pytest.mark.parametrize("name", OTHERS)
def test_every_rank_sees_the_same_results(name: str, recorded: Path) -> None:
    assert read_json(recorded / f"{name}-0.json") == read_json(recorded / f"{name}-1.json")


@pytest.mark.parametrize("name", ["tp2", "dp2"])
def test_the_loop_on_two_ranks_does_what_it_does_on_one(name: str, recorded: Path) -> None:
    one, two = runs.metrics(recorded / "one-loop"), runs.metrics(recorded / f"{name}-loop")
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        assert b["reward/mean"] == a["reward/mean"] and b["train/tokens"] == a["train/tokens"]
        assert b["train/loss"] == pytest.approx(a["train/loss"], abs=TOLERANCE)
        assert b["gap/max"] < 1e-4


@pytest.mark.parametrize("name", [n for n in LORA_LAYOUTS if n != "one"])
def test_adapters_get_the_update_of_one_rank_under_every_layout(name: str, recorded: Path) -> None:
    reference, found = weights(recorded / "lora-one"), weights(recorded / f"lora-{name}")
    for key, value in reference.items():
        np.testing.assert_allclose(found[key], value, atol=TOLERANCE, rtol=0, err_msg=key)
    a, b = (read_json(recorded / f"lora-{n}.json")["norms"] for n in ("one", name))
    assert b == pytest.approx(a, rel=TOLERANCE)


@pytest.mark.parametrize("name", LORA_LAYOUTS)
def test_a_checkpoint_of_adapters_loads_in_every_layout(name: str, recorded: Path) -> None:
    saved, loaded = weights(recorded / "lora-tp2"), weights(recorded / f"lora-{name}" / "loaded")
    for key, value in saved.items():
        np.testing.assert_allclose(loaded[key], value, atol=1e-7, rtol=0, err_msg=key)


def test_adapters_change_linear_layers_only(recorded: Path, model: Path) -> None:
    from safetensors.torch import load_file

    base = {name: t.numpy() for name, t in load_file(model / "model.safetensors").items()}
    found = weights(recorded / "lora-one")
    changed = {key for key, value in found.items() if not np.array_equal(base[key], value)}
    assert changed == {key for key in base if key.endswith("_proj.weight")}


@pytest.mark.parametrize("width", [0, 12])
def test_a_sharpened_teacher_grades_with_its_logits_divided_by_the_temperature(
    width: int, model: Path, ranks
) -> None:
    from rl.samples import TrainSample
    from rl.session import build_actor

    actor = build_actor(runs.config(model, {"name": "opd"}), ranks)
    ids = np.arange(5, 17, dtype=np.int32)
    sample = TrainSample(
        ids=ids,
        trainable=np.arange(12) >= 4,
        episode_id="e",
        prompt_id="p",
        seat="s",
        version=0,
        top_k=width,
        teacher_prefix=ids[1:4],
        teacher_temperature=0.25,
    )
    (graded,) = actor.prepare([sample])
    seen = np.concatenate([ids[1:4], ids[4:]])
    every = np.tile(np.arange(actor.trainer.arch.vocab_size, dtype=np.int32), (len(seen), 1))
    (logprobs_TV,) = actor.logprobs([seen], candidates=[every])  # at temperature 1
    sharpened_TV = logprobs_TV[3:] / 0.25
    sharpened_TV -= np.log(np.exp(sharpened_TV).sum(1, keepdims=True))
    if width:
        assert graded.top_k_teacher is not None and graded.top_k_ids is not None
        found, asked = graded.top_k_teacher[4:], graded.top_k_ids[4:]
    else:
        assert graded.teacher_logprobs is not None
        found, asked = graded.teacher_logprobs[4:, None], ids[4:, None]
    np.testing.assert_allclose(found, np.take_along_axis(sharpened_TV, asked, 1), atol=TOLERANCE, rtol=0)
