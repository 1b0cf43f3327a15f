"""Sotopia rows: two named people with private backgrounds and goals, from records of OdysSim's files. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.files import hash_json
from envs.tasks.files import field
from envs.tasks.schema import FromRecord, RowData, checked, distinct, row_of, text_of
from envs.types import Row, Seat

ACTOR: Seat = "actor"
PARTNER: Seat = "partner"
SEATS = (ACTOR, PARTNER)
Text = Annotated[str, Field(min_length=1)]


class Scene(RowData):
    """The validated data of one row. Pairs are (first speaker, second speaker)."""

    scenario: Text
    relationship: str
    names: tuple[Text, Text]
    backgrounds: tuple[str, str]
    goals: tuple[Text, Text]
    actor: Literal[0, 1]
    """Which of the two the policy plays."""

    @model_validator(mode="after")
    def _check(self) -> Scene:
        if self.names[0] == self.names[1]:
            raise ValueError("the two people have the same name")
        return self

    def person(self, seat: Seat) -> int:
        """Index of the person in this seat."""
        return self.actor if seat == ACTOR else 1 - self.actor

    def seat(self, person: int) -> Seat:
        """Seat of a person."""
        return ACTOR if person == self.actor else PARTNER


def reader(task: str) -> FromRecord:
    """Reads OdysSim's records as rows of `task`."""

    def from_record(record: Mapping[str, Any], number: int, *, where: str) -> Row:
        names = tuple(str(field(record, f"agent{i}_name", where=where)) for i in (1, 2))
        fill = _filler(names)
        scenario = fill(str(field(record, "scenario", where=where)))
        position = text_of(record, "eval_position", default="agent1")
        data = checked(
            Scene,
            {
                "scenario": scenario,
                "relationship": text_of(record, "relationship"),
                "names": names,
                "backgrounds": tuple(fill(text_of(record, f"agent{i}_background")) for i in (1, 2)),
                "goals": tuple(fill(text_of(record, f"agent{i}_goal")) for i in (1, 2)),
                "actor": {"agent1": 0, "agent2": 1}.get(position, -1),
            },
            where,
        )
        ident = distinct(text_of(record, "index", "id", default=str(number)), data)
        return row_of(task, ident, hash_json(scenario)[:16], data)

    return from_record


def _filler(names: tuple[str, ...]) -> Any:
    """Puts the names where a text says Agent1 and Agent2."""

    def fill(text: str) -> str:
        return re.sub(r"\b[Aa]gent[ _]?([12])\b", lambda m: names[int(m.group(1)) - 1], text)

    return fill
