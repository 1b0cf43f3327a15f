"""A small made-up task, a policy of known accuracy, and results built from plain numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from envs import registry
from envs.players.base import Ask
from envs.players.scripted import ScriptedPlayer
from envs.tasks.hitom.rows import prompt_text, read_item
from envs.types import Episode, FailureReason, Message, Row, Say, Score, SeatTrace, Segment, Unscored
from eval.results import Item, Results, TaskResult
from eval.run import Contestants
from eval.stats import Clustered, JointBootstrap


def make_items(values: Sequence[float | None], *, per_cluster: int = 1, run: str = "run") -> tuple[Item, ...]:
    return tuple(
        Item(
            row=f"row-{i}",
            epoch=0,
            cluster=f"cluster-{i // per_cluster:04d}",
            content=f"content-{i}",
            key=f"{run}-{i}",
            value=value,
            reason=None if value is not None else "engine_failed",
        )
        for i, value in enumerate(values)
    )


def make_task(
    values: Sequence[float | None], *, task: str = "hitom", run: str = "run", **changes: object
) -> TaskResult:
    items = make_items(values, per_cluster=int(str(changes.pop("per_cluster", 1))), run=run)
    scored = [i for i in items if i.value is not None]
    statistic = Clustered.of([i.value for i in scored if i.value is not None], [i.cluster for i in scored])
    estimate = JointBootstrap(0, draws=400).estimate(task, statistic, unit=True) if scored else None
    fields: dict[str, object] = {
        "task": task,
        "version": 1,
        "axis": "COG",
        "profile": "strict",
        "metric": "accuracy",
        "planned": len(items),
        "scored": len(scored),
        "estimate": estimate,
        "items": items,
    }
    return TaskResult.model_validate(fields | changes)


def make_results(name: str, *tasks: TaskResult) -> Results:
    return Results(name=name, model=name, plan="plan", seed=0, epochs=1, profile="strict", tasks=tasks)


def contestants(accuracy: float, model: str = "scripted") -> Contestants:
    """A policy for the first 50 held-out hitom questions, right with this probability (seeded by the prompt)."""
    items = [read_item(row) for row in registry.get("hitom").rows("test", 50, 0)]
    letters = {prompt_text(item): item.letter for item in items}

    def answer(ask: Ask) -> str:
        prompt = ask.view[-1].content
        right = random.Random(f"{model}{accuracy}{prompt}").random() < accuracy
        return f"<answer>{letters[prompt] if right else 'Z'}</answer>"

    return Contestants(model, ScriptedPlayer(answer))


class MemoryStore:
    """Keeps episodes in a dict and counts what is put."""

    def __init__(self) -> None:
        self.kept: dict[str, Episode] = {}
        self.puts: list[str] = []

    def load(self, plan: object) -> dict[str, Episode]:
        return dict(self.kept)

    def put(self, planned, episode: Episode) -> None:  # type: ignore[no-untyped-def]
        self.kept[planned.key] = episode
        self.puts.append(planned.key)

    def attempts(self, planned) -> int:  # type: ignore[no-untyped-def]
        return self.puts.count(planned.key)

    def flush(self) -> None:
        return None


def make_episode(
    text: str,
    *,
    task: str = "hitom",
    row: str = "r0",
    value: float | None = 1.0,
    turns: int = 1,
    seat: str = "reader",
) -> Episode:
    """An episode with one policy seat, token by character code point."""
    prompt = "Where is the ball?"
    segments = []
    for turn in range(turns):
        segments.append(Segment(tuple(prompt.encode()), trainable=False, turn=turn))
        ids = tuple(text.encode("utf-8", "replace"))
        segments.append(Segment(ids, trainable=True, turn=turn, logprobs=tuple(-0.5 for _ in ids), version=1))
    outcome = Score(value) if value is not None else Unscored(FailureReason.JUDGE_FAILED, "no reply")
    return Episode(
        row=Row(task, row, row, {"story": "Ann put the ball into the box.", "answer": "box"}),
        seed=1,
        says=tuple(Say(seat, text) for _ in range(turns)),
        views={seat: (Message("user", prompt), Message("assistant", text))},
        traces={seat: SeatTrace(seat, True, tuple(segments))},
        outcomes={seat: outcome},
    )
