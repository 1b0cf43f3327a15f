"""TwinVoice rows: OdysSim's records, and the authors' three dimensions. Pure but for reading files.

Dimension 1 (social): user_id, anchor_post, choices, answer_idx, history. Dimension 2 (interpersonal): the same with
`context` for the post. Dimension 3 (narrative): `choices.jsonl` with the options in `mcq`, and beside it
`profiles.jsonl`, one JSON object of characters, from which persona and earlier lines are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UsageError
from envs.tasks.choice import ChoiceData, answer_text
from envs.tasks.files import field, read_records, texts
from envs.tasks.reading import Made, Reader
from envs.tasks.schema import checked
from envs.types import Row

NAME = "twinvoice"
SOURCES = (NAME,)
POSTS_SHOWN, LINES_SHOWN = 30, 12
"""How much of a history the authors show: posts of dimensions 1 and 2, lines of a character of dimension 3."""
CHARACTERS = "characterList"
PERSONA_FIELDS = ("Personality Traits", "Motivation and Goals", "Additional Details")


class Voice(ChoiceData):
    """A post and four replies, one of them this person's."""

    person: str
    persona: str
    """What is known about the person beyond the history; may be empty."""
    history: tuple[str, ...]
    """What the person wrote before, oldest first."""
    anchor: str
    dimension: str


@dataclass(frozen=True)
class Character:
    """A character of dimension 3: persona, and lines with the chunk in which each was spoken."""

    name: str
    persona: str
    lines: tuple[tuple[str, str], ...]

    def before(self, chunk: str) -> list[str]:
        """The lines spoken before a chunk, oldest first."""
        said = sorted(((_chunk(at), text) for at, text in self.lines if _chunk(at) < _chunk(chunk)))
        return [text for _, text in said][-LINES_SHOWN:]


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file or folder. Raises UsageError (no profiles beside dimension 3) or DataError."""
    folder = path if path.is_dir() else path.parent
    cast = read_characters(folder / "profiles.jsonl")
    records = (record for record in read_records(path) if CHARACTERS not in record)
    yield from Reader(NAME, lambda record, where: make(record, where, cast), SOURCES).rows(records, str(path))


def make(record: Mapping[str, Any], where: str, cast: Mapping[str, Character] | None = None) -> Made:
    """The row of one record."""
    if "mcq" in record:
        yield _narrative(record, where, cast or {})
        return
    choices = tuple(texts(field(record, "answer_choices", "choices", where=where)))
    social = record.get("anchor_post") is not None
    history = texts(field(record, "conversation_history", "history", where=where))
    person = str(record.get("user_id") or "")
    values = {
        "person": person,
        "persona": "",
        "history": tuple(history if record.get("data_source") else history[-POSTS_SHOWN:]),
        "anchor": str(field(record, "anchor_post", "context", where=where)).strip(),
        "choices": choices,
        "answer": answer_text(int(field(record, "answer_idx", where=where)), choices),
        "dimension": str(record.get("dimension") or ("1" if social else "2")),
    }
    yield person or "nobody in particular", checked(Voice, values, where)


def read_characters(path: Path) -> dict[str, Character]:
    """Characters by every name they have, lower-case; none without the file."""
    if not path.is_file():
        return {}
    cast: dict[str, Character] = {}
    for record in read_records(path):
        for found in record.get(CHARACTERS, {}).values():
            lines = tuple((str(u["chunk_id"]), str(u["utterance"])) for u in found.get("UtteranceHistory") or ())
            persona = "\n".join(f"{name}: {_listed(found[name])}" for name in PERSONA_FIELDS if found.get(name))
            name = str(found["NameCanonical"])
            character = Character(name, persona, lines)
            for known in (name, *texts(found.get("NameVariants") or [])):
                cast.setdefault(known.lower(), character)
    return cast


def _narrative(record: Mapping[str, Any], where: str, cast: Mapping[str, Character]) -> tuple[str, Voice]:
    asked = record["mcq"]
    letters = sorted(field(asked, "options", where=where))
    choices = tuple(str(asked["options"][letter]) for letter in letters)
    speaker = str(field(record, "speaker", where=where))
    if not cast:
        raise UsageError(
            "these are choices of dimension 3 without their characters",
            where=where,
            fix="put profiles.jsonl of the same folder beside them",
        )
    known = (record.get("speaker_match_key") or "", speaker)
    character = next((cast[name.lower()] for name in known if name.lower() in cast), Character(speaker, "", ()))
    values = {
        "person": character.name,
        "persona": character.persona,
        "history": tuple(character.before(str(record["chunk_id"]))) if record.get("chunk_id") else (),
        "anchor": str(field(record, "context", where=where)),
        "choices": choices,
        "answer": answer_text(str(field(asked, "answer", where=where)), choices),
        "dimension": "3",
    }
    return f"{record.get('source_novel', '')}: {character.name}", checked(Voice, values, where)


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_listed(item)}" for name, item in value.items())
    return (
        ", ".join(str(v) for v in value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    )


def _chunk(name: str) -> tuple[int, str]:
    """Chunks are ordered by number; those without one come last."""
    return (int(name) if name.isdecimal() else 10**12, name)
