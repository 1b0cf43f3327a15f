"""SimulatorArena rows: a real person's talk with a tutor or a writing assistant, as OdysSim and the authors give it.

The authors' mathematics files leave out the problem's text (`data/load_math_data.py` restores it from MATH): such
rows load, and the student is told only level and topic. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from common.files import hash_json
from envs.tasks.files import loads, texts
from envs.tasks.schema import FromRecord, RowData, checked, distinct, row_of, text_of
from envs.types import Row

Kind = Literal["math", "doc"]
NAMES: Mapping[Kind, str] = {"math": "sim_math", "doc": "sim_doc"}
Text = Annotated[str, Field(min_length=1)]


class Feature(RowData):
    """One trait of the real person's messages, to be matched."""

    style: Literal["writing", "interaction"]
    name: Text
    description: Text


class Exchange(RowData):
    """One message of the real conversation."""

    role: Literal["user", "assistant"]
    content: str


class Session(RowData):
    """The validated data of one row."""

    kind: Kind
    task: Text
    """The problem to be solved, or the document to be written (type, intent, materials)."""
    profile: str
    """Who the person is; only the person's own seat sees it."""
    queries: Annotated[tuple[Text, ...], Field(min_length=1)]
    """What the real person wrote: only judges see it."""
    conversation: tuple[Exchange, ...]
    """The real conversation, for judges."""
    features: tuple[Feature, ...]
    preferences: str
    """What the person values in the document, for the judge of the document."""
    rating: float | None
    """The real person's rating of the assistant, 1 to 10."""

    def features_of(self, style: str) -> tuple[Feature, ...]:
        return tuple(f for f in self.features if f.style == style)


def reader(kind: Kind) -> FromRecord:
    """Reads records of either form."""

    def from_record(record: Mapping[str, Any], number: int, *, where: str) -> Row:
        record = _odyssim(record) if "human_user_queries" in record else _authors(record, kind)
        task = _problem(record) if kind == "math" else _document(record)
        values = {
            "kind": kind,
            "task": task,
            "profile": text_of(record, "user_profile_text").strip(),
            "queries": [q for q in map(str.strip, texts(record.get("human_user_queries") or [])) if q],
            "conversation": record["human_public_conversation"],
            "features": [
                *_features("writing", record.get("target_writing_style_features")),
                *_features("interaction", record.get("target_interaction_style_features")),
            ],
            "preferences": text_of(record, "target_document_preferences"),
            "rating": record.get("rating"),
        }
        data = checked(Session, values, where)
        ident = distinct(text_of(record, "index", "id", default=str(number)), data)
        return row_of(NAMES[kind], ident, hash_json([kind, data.task])[:16], data)

    return from_record


def _odyssim(record: Mapping[str, Any]) -> dict[str, Any]:
    talk: Any = record.get("human_public_conversation") or []
    return {**record, "human_public_conversation": _exchanges(loads(talk.encode()) if _is_json(talk) else talk)}


def _authors(record: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    queries, answers = texts(record.get("user_queries") or []), texts(record.get("ai_responses") or [])
    talk = [m for pair in zip(queries, answers, strict=False) for m in zip(("user", "assistant"), pair, strict=True)]
    materials = zip(
        texts(record.get("bullet_points") or []), texts(record.get("bullet_points_responses") or []), strict=False
    )
    known = record.get("math_expertise")
    return {
        **record,
        "human_user_queries": queries,
        "human_public_conversation": [{"role": role, "content": text} for role, text in talk],
        "pre_writing_materials_text": "\n".join(f"{question} {answer}" for question, answer in materials),
        "user_profile_text": f"Your mathematics: {known}." if kind == "math" and known else "",
        "rating": record.get("overall_rating", record.get("overall_interaction_rating")),
    }


def _problem(record: Mapping[str, Any]) -> str:
    stated = text_of(record, "problem", "question").strip()
    return stated or f"a problem of {text_of(record, 'type', default='mathematics')}, {text_of(record, 'level')}"


def _document(record: Mapping[str, Any]) -> str:
    materials = text_of(record, "pre_writing_materials_text").strip()
    task = f"Type of document: {text_of(record, 'document_type')}\nIntent: {text_of(record, 'intent')}"
    return f"{task}\nMaterials:\n{materials}" if materials else task


def _features(style: str, found: Any) -> list[dict[str, str]]:
    listed: Iterable[Any] = loads(found.encode()) if _is_json(found) else found or ()
    named = [
        (text_of(f, "Feature Name").strip(), text_of(f, "Feature Question Answer", "Feature Question").strip())
        for f in listed
    ]
    return [{"style": style, "name": name, "description": told} for name, told in named if name and told]


def _exchanges(found: Any) -> list[dict[str, str]]:
    if isinstance(found, str):
        return [{"role": "user", "content": found}] if found else []
    return [{"role": text_of(m, "role"), "content": text_of(m, "content")} for m in found]


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[")
