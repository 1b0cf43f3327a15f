"""CoSER rows: one scene of a book with its cast, from the authors' test set or OdysSim's files. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from common.errors import DataError
from envs.tasks.files import field, loads
from envs.tasks.schema import RowData, checked, row_of, text_of
from envs.types import Row, Seat

NAME = "coser"
ENVIRONMENT = "Environment"
MAX_CAST = 8
"""The authors' scenes have at most six speaking characters."""
CHARACTERS: tuple[Seat, ...] = tuple(f"character_{i + 1}" for i in range(MAX_CAST))
NARRATOR: Seat = "narrator"
DIRECTOR: Seat = "director"
Text = Annotated[str, Field(min_length=1)]


class Figure(RowData):
    """One speaking character. The motivation is known to nobody else."""

    name: Text
    profile: str
    motivation: str


class Spoken(RowData):
    """One message of the book's own dialogue."""

    character: Text
    message: str


class Scene(RowData):
    """The validated data of one row. The cast is in order of speaking; seat `character_i` plays the i-th."""

    book: Text
    summary: str
    scenario: Text
    cast: Annotated[tuple[Figure, ...], Field(min_length=1, max_length=MAX_CAST)]
    major: tuple[str, ...]
    first: Text
    """Who speaks first: a name of the cast, or Environment."""
    reference: tuple[Spoken, ...]
    given: Annotated[int, Field(ge=0)]
    """How many messages of the reference are played before anybody acts."""

    @model_validator(mode="after")
    def _check(self) -> Scene:
        names = [figure.name for figure in self.cast]
        if len(set(names)) != len(names) or ENVIRONMENT in names:
            raise ValueError("two characters of one name, or one called Environment")
        if self.first not in (*names, ENVIRONMENT):
            raise ValueError(f"the first speaker {self.first!r} is not in the cast")
        if self.given > len(self.reference):
            raise ValueError(f"{self.given} messages are given, the reference has {len(self.reference)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(figure.name for figure in self.cast)

    def seat_of(self, name: str) -> Seat:
        """Who plays a name; characters outside the cast are the narrator's."""
        return CHARACTERS[self.names.index(name)] if name in self.names else NARRATOR

    def figure_in(self, seat: Seat) -> Figure | None:
        """The character of a seat; None for the narrator, the director and seats without one."""
        place = CHARACTERS.index(seat) if seat in CHARACTERS else MAX_CAST
        return self.cast[place] if place < len(self.cast) else None


def from_record(record: Mapping[str, Any], number: int, *, where: str) -> Row:
    """A row of one record: OdysSim's (`circumstance`) or the authors' (the same fields at the top). DataError."""
    circumstance = record.get("circumstance", record)
    scene: Mapping[str, Any] = loads(circumstance.encode()) if isinstance(circumstance, str) else circumstance
    speakers = [str(s) for s in field(scene, "speaking_characters_w_env", where=where)]
    plot = scene.get("plot") or {}
    names = [s for s in speakers if s != ENVIRONMENT]
    if not names:
        raise DataError("nobody speaks", where=where, fix="repair speaking_characters_w_env")
    data = checked(
        Scene,
        {
            "book": text_of(scene, "book"),
            "summary": text_of(plot, "summary"),
            "scenario": text_of(scene, "scenario"),
            "cast": [_figure(name, scene, plot) for name in names],
            "major": [str(m) for m in scene.get("major_characters") or names if str(m) in names],
            "first": speakers[0],
            "reference": [
                {"character": text_of(d, "character"), "message": text_of(d, "message")}
                for d in scene.get("dialogues") or ()
            ],
            "given": int(record.get("continue_from") or 0),
        },
        where,
    )
    place = f"{text_of(plot, 'i_p', default=text_of(scene, 'i_p'))}-{text_of(scene, 'i_c')}"
    ident = f"{data.book}-{place}" if place != "-" else text_of(record, "index", default=str(number))
    return row_of(NAME, ident, data.book, data)


def _figure(name: str, scene: Mapping[str, Any], plot: Mapping[str, Any]) -> dict[str, str]:
    described = _named(plot.get("key_characters") or (), name)
    key = _named(scene.get("key_characters") or (), name)
    profile = text_of(scene.get("character_profiles") or {}, name).strip()
    parts = [text_of(described, "description").strip(), profile]
    return {
        "name": name,
        "profile": "\n\n".join(p for p in parts if p),
        "motivation": text_of(key, "motivation", "thought"),
    }


def _named(figures: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next((figure for figure in figures if figure.get("name") == name), {})
