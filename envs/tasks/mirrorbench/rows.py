"""MirrorBench rows: a real conversation and a description of its user, in the authors' and OdysSim's form. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.files import hash_json
from envs.tasks.files import field, loads
from envs.tasks.quoting import copied_share
from envs.tasks.schema import RowData, checked, row_of, text_of
from envs.types import Row

NAME = "mirrorbench"
MAX_TURNS = 10
SAME = 0.5
"""Share of 4-grams in common from which an example gives a real turn away."""


class Turn(RowData):
    """One message of the real conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Conversation(RowData):
    """The validated data of one row."""

    dataset: str
    description: str
    """What the user wants and how the user writes."""
    turns: tuple[Turn, ...]
    """Roles alternate; the last is the user's; at most ten."""
    examples: tuple[str, ...]
    """Messages of other users on like matters; none of them is, or nearly is, a real turn of this conversation."""

    @model_validator(mode="after")
    def _check(self) -> Conversation:
        if not self.turns or self.turns[-1].role != "user":
            raise ValueError("no turn of the user at the end")
        if any(a.role == b.role for a, b in zip(self.turns, self.turns[1:], strict=False)):
            raise ValueError("roles do not alternate")
        return self

    @property
    def given(self) -> tuple[Turn, ...]:
        """The assistant's opening, which is replayed: nothing came before it."""
        return self.turns[:1] if self.turns[0].role == "assistant" else ()

    def said_by(self, role: str) -> list[str]:
        """What the real user or the real assistant said."""
        return [turn.content for turn in self.turns if turn.role == role]


def from_record(record: Mapping[str, Any], number: int, *, where: str) -> Row:
    """A row of one record. Raises DataError."""
    metadata = record.get("metadata") or {}
    turns = _planned(_list(field(record, "turns", where=where)))
    real = [content for role, content in turns if role == "user"]
    found = _list(record.get("few_shot_user_examples") or metadata.get("few_shot_user_examples") or [])
    utterances = [str(e["utterance"] if isinstance(e, Mapping) else e).strip() for e in found]
    data = checked(
        Conversation,
        {
            "dataset": text_of(record, "dataset", default="mirrorbench"),
            "description": text_of(record, "task_description"),
            "turns": [{"role": role, "content": content} for role, content in turns],
            "examples": [u for u in utterances if u and not gives_away(u, real)],
        },
        where,
    )
    ident = text_of(record, "conversation_id", "index", "id", default=str(number))
    return row_of(NAME, f"{data.dataset}/{ident}", hash_json(real)[:16], data)


def gives_away(example: str, real: Sequence[str]) -> bool:
    """Whether an example is, holds, or mostly repeats a real turn."""
    own = _plain(example)
    return any(
        own == turn or (len(turn.split()) > 2 and turn in own) or copied_share(turn, own) >= SAME
        for turn in map(_plain, real)
    )


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _list(value: Any) -> list[Any]:
    return loads(value.encode()) if isinstance(value, str) else list(value)


def _planned(turns: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The turns that are played: runs of one role joined, at most ten, without assistant turns at the end."""
    joined: list[tuple[str, str]] = []
    for turn in turns:
        role, content = str(turn.get("role")), str(turn.get("content") or "").strip()
        if role not in ("user", "assistant") or not content:
            continue
        if joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]}\n{content}")
        else:
            joined.append((role, content))
    joined = joined[:MAX_TURNS]
    while joined and joined[-1][0] == "assistant":
        joined.pop()
    return joined
