"""A seeded handful of the faults of `python -m tests.chaos`, and the judge itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import endings, faults
from tests.chaos.base import Lost, Scenario, Verdict, require_refusal
from tests.chaos.process import Child, Hung, call
from tests.chaos.report import markdown
from tests.chaos.runner import Plan, Trial, run
from tests.chaos.scenarios import ALL
from tests.chaos.scenarios.evaluation import Evaluation
from tests.chaos.scenarios.ground import Ground
from tests.chaos.scenarios.ledger import LedgerFiles
from tests.chaos.scenarios.prepare import Prepare

SUBSET: dict[type[Scenario], tuple[str, ...]] = {
    LedgerFiles: ("kill -9 of the writer", "torn log", "damaged file"),
    Prepare: ("kill -9, any process", "damaged shard"),
    Ground: ("endpoint: broken JSON", "two at once"),
    Evaluation: ("kill -9", "damaged replies", "two at once, different"),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SUBSET, ids=lambda s: s.name)
def test_a_seeded_fault_of_each_kind_loses_nothing(scenario: type[Scenario], tmp_path: Path) -> None:
    trials = list(run([scenario], Plan(seed=1, faults=1, kinds=SUBSET[scenario]), tmp_path, say=False))
    assert [t.kind for t in trials] == [k for k in scenario.kinds if k in SUBSET[scenario]]
    assert [(t.command, t.detail) for t in trials if t.failed] == []


def test_a_refusal_has_an_error_and_its_fix_a_crash_is_none_and_a_deadline_is_one(tmp_path: Path) -> None:
    children = [call(f, log=tmp_path / f.__name__) for f in (endings.refuse, endings.crash, endings.stay)]
    try:
        assert children[0].wait(200) == 2 and "do something else" in require_refusal(children[0])
        assert children[1].wait(200) == 1
        with pytest.raises(Lost, match="a bug"):
            require_refusal(children[1])
        with pytest.raises(Hung, match="alive after"):
            children[2].wait(0.1)
    finally:
        Child.end_all()
    assert children[2].code == -9


class Broken(Scenario):
    """Loses, hangs, and cannot be injected, in this order."""

    name = "broken"
    kinds = {"a": 1, "b": 1, "c": 2}  # noqa: RUF012

    def build(self) -> None:
        return

    def inject(self, kind: str, rng: object, folder: Path) -> object:  # type: ignore[override]
        raise {"a": Lost("gone"), "b": Hung("still there"), "c": faults.NotHere("no mount")}[kind]


def test_a_failure_is_in_the_table_with_the_command_that_repeats_it(tmp_path: Path) -> None:
    trials = list(run([Broken], Plan(seed=7), tmp_path, say=False))
    assert [t.verdict for t in trials] == [Verdict.LOST, Verdict.HUNG, None, None]
    text = markdown(trials)
    assert "python -m tests.chaos --scenario broken --kind a --index 0 --seed 7" in text
    several = Trial("rl, sglang", "trainer killed", 0, 7, Verdict.LOST, 0.0, "").command
    assert "--scenario 'rl, sglang' --kind 'trainer killed' --index 0" in several
    assert "| all |  | 2 | 0 | 0 | 1 | 1 |" in text and "not tried here: broken, c: no mount" in text


def test_a_full_run_injects_at_least_200_faults_and_its_seed_decides_them() -> None:
    plan = Plan(seed=3)
    assert sum(len(list(plan.of(scenario))) for scenario in ALL) >= 200
    assert len({scenario.name for scenario in ALL}) == len(ALL)


def test_damage_follows_from_the_seed(tmp_path: Path) -> None:
    from random import Random

    path = tmp_path / "f"
    for kind in faults.DAMAGES:
        made = []
        for _ in range(2):
            path.write_bytes(bytes(range(256)) * 40)
            said = faults.damage(path, kind, Random(5))
            made.append((said, path.read_bytes() if path.exists() else None))
        assert made[0] == made[1] and made[0][1] != bytes(range(256)) * 40


def test_a_trial_knows_whether_it_failed() -> None:
    trial = Trial("s", "k", 0, 0, Verdict.REFUSED, 1.0, "")
    assert not trial.failed
