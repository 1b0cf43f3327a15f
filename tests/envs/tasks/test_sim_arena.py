"""SimulatorArena: real samples, all judges needed, no free floor, traits by number, private profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.registry import TaskSpec, with_data
from envs.tasks.schema import rows_of_records
from envs.tasks.sim_arena.examples import DOC, MATH
from envs.tasks.sim_arena.rows import reader
from envs.types import Episode, FailureReason, Row, Score, Stop, Unscored
from tests.envs.tasks.judged import SAMPLES, FixedJudge, played, rows_from_parquet, value

SPECS = {"math": registry.get("sim_math"), "doc": registry.get("sim_doc")}
ROPE, SEVEN = rows_of_records(MATH, reader("math"))
(LETTER,) = rows_of_records(DOC, reader("doc"))
FILES = {"math": ("math_13.jsonl", 13), "doc": ("doc_5.jsonl", 5)}
END = "terminate conversation"


def judge(spec: TaskSpec, numbers: tuple[int, ...] = (1, 2, 3), likeness: int = 3, **drop: Any) -> FixedJudge:
    rating = {"reasoning": "r", "score": likeness}
    traits = [{"number": n, "reasoning": "r", "match": n == 1} for n in numbers]
    verdicts: dict[str, Any] = {
        "sim_arena.writing": rating,
        "sim_arena.interaction": rating,
        "sim_arena.traits": {"traits": traits},
        "sim_arena.critic": {"feedback": "Shorter."},
    }
    if spec.name == "sim_doc":
        verdicts["sim_arena.document"] = {"reasoning": "r", "score": 10}
    return FixedJudge(spec, {k: v for k, v in verdicts.items() if k not in drop.get("without", ())})


def work(row: Row, *lines: str, profile: Any = "strict", asked: Any = None) -> Episode:
    spec = SPECS[row.data["kind"]]
    says = {"user": lines, "assistant": ["What have you tried so far?"]}
    return played(spec, row, says, judge=asked or judge(spec), profile=profile)


@pytest.mark.parametrize("kind", FILES)
def test_real_samples_load_play_score_and_keep_private_texts_private(kind: Any) -> None:
    name, count = FILES[kind]
    path = SAMPLES / "simulator_arena" / name
    if not path.is_file():
        pytest.skip(f"no benchmark samples: {SAMPLES} is not here")
    spec = with_data(SPECS[kind], path)
    rows = list(spec.rows("test", None, 0))
    assert len(rows) == count and spec.private is not None
    for row in rows:
        episode = work(row, "how do i begin")
        assert 0 < value(episode, "user") < 1
        for owner, texts in spec.private(row).items():
            for seat, view in episode.views.items():
                assert seat == owner or not any(t in m.content for m in view for t in texts), row.id
        assert value(work(row, "how", END, "7", profile="author"), "user") == 1 - abs(7 - row.data["rating"]) / 9


@pytest.mark.parametrize(("kind", "record"), [*(("math", r) for r in MATH), *(("doc", r) for r in DOC)])
def test_published_rows_load_unchanged(kind: Any, record: Any, tmp_path: Path) -> None:
    assert rows_from_parquet(SPECS[kind], record, tmp_path)[0].data == rows_of_records([record], reader(kind))[0].data


def test_the_person_has_eight_messages_and_thoughts_are_not_sent() -> None:
    episode = work(ROPE, "Thought: he is slow.\nMessage: how do i start")
    assert sum(say.seat == "user" for say in episode.says) == 8
    assert [m.content for m in episode.views["assistant"] if m.role == "user"] == ["how do i start"] * 8


def test_the_worst_likeness_is_zero_under_strict_and_a_fifth_under_soul() -> None:
    worst = judge(SPECS["math"], likeness=1)
    assert value(work(SEVEN, "hm", asked=worst), "user") == 0
    assert value(work(SEVEN, "hm", asked=worst, profile="soul"), "user") == pytest.approx((0.2 + 0.2 + 0) / 3)


def test_a_document_is_asked_for_and_judged() -> None:
    asked = judge(SPECS["doc"], (1, 2))
    episode = work(LETTER, "write it short", END, asked=asked)
    assert episode.says[-1].seat == "assistant"
    assert {spec for spec, _ in asked.asked} == {j.id for j in SPECS["doc"].judges} - {"sim_arena.critic"}
    outcome = episode.outcomes["user"]
    assert isinstance(outcome, Score)
    expected = {"writing": 0.5, "interaction": 0.5, "document": 1.0, "writing traits": 1.0, "interaction traits": 0.0}
    assert outcome.parts == expected and outcome.value == pytest.approx(0.6)
    soul = value(work(LETTER, "write it short", END, asked=asked, profile="soul"), "user")
    assert soul == pytest.approx((0.6 + 0.6 + 1 + 1 + 0) / 5)


@pytest.mark.parametrize("numbers", [(1, 2), (1, 2, 2), (1, 2, 4), ()])
def test_a_judge_that_forgets_a_trait_gives_no_score(numbers: tuple[int, ...]) -> None:
    outcome = work(ROPE, "hm", asked=judge(SPECS["math"], numbers)).outcomes["user"]
    assert isinstance(outcome, Unscored) and outcome.reason is FailureReason.JUDGE_FAILED
    assert value(work(ROPE, "hm", asked=judge(SPECS["math"], (3, 1, 2))), "user") > 0


@pytest.mark.parametrize("down", ["sim_arena.writing", "sim_arena.interaction", "sim_arena.traits"])
def test_one_judge_that_fails_leaves_the_episode_unscored(down: str) -> None:
    outcome = work(ROPE, "hm", asked=judge(SPECS["math"], without=(down,))).outcomes["user"]
    assert outcome == Unscored(FailureReason.JUDGE_FAILED, f"{down}: down")


def test_leaving_at_once_silence_and_echoes_earn_nothing() -> None:
    asked = judge(SPECS["math"])
    assert value(work(ROPE, END, asked=asked), "user") == 0 and asked.asked == []
    silent = work(ROPE, "Message:  ")
    assert silent.stop is Stop.FORMAT_ERROR and value(silent, "user") == 0


def test_an_empty_message_is_a_format_error_under_strict_only() -> None:
    silent = work(ROPE, "Message:  ", "how do i start", END, profile="soul")
    assert silent.stop is Stop.FINISHED and value(silent, "user") > 0
    heard = [m.content for m in silent.views["assistant"] if m.role == "user"]
    assert heard == ["(no message)", "how do i start"]
    rated = work(ROPE, "Message:  ", END, "7", profile="author")
    assert rated.stop is Stop.FINISHED and isinstance(rated.outcomes["user"], Score)
    unrated = work(ROPE, "how", END, "no idea", profile="author")
    assert unrated.stop is Stop.FORMAT_ERROR
    assert value(work(ROPE, "hi", "What have you tried so far?"), "user") == 0


def test_the_rating_must_be_a_number_and_ratings_are_correlated_over_rows() -> None:
    assert value(work(ROPE, "hm", END, "I would say 7/10", profile="author"), "user") == pytest.approx(1 - 1 / 9)
    bad = work(ROPE, "hm", END, "great", profile="author").outcomes["user"]
    assert isinstance(bad, Score) and bad.format_error
    aggregate = SPECS["math"].aggregate
    assert aggregate is not None
    rated = [work(ROPE, "hm", END, r, profile="author") for r in ("5",)] + [
        work(SEVEN, "hm", END, r, profile="author") for r in ("7", "9")
    ]
    assert aggregate(rated)["Spearman of ratings"] > 0.8


def test_feedback_by_a_critic_never_quotes_the_real_person() -> None:
    env = SPECS["math"].env("strict")
    state = env.start(ROPE, None)
    assert env.feedback(env.hear(state, "user", END), "user").sees_gold is False
    ask = env.feedback(env.hear(state, "user", "hello there"), "user")
    schema = next(j.schema for j in SPECS["math"].judges if j.id == ask.spec)
    assert ask.sees_gold and "quote" not in ask.text(schema(feedback="how do i even start with this"))
    assert ask.text(schema(feedback="Be brief. Ask how do i even start with this.")) == "Be brief. Ask …."
