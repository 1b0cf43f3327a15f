"""UserLLM rows: an intent, what was said so far, and where it comes from, in the form of OdysSim's files. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.errors import DataError
from common.files import hash_json
from envs.tasks.files import field, texts
from envs.tasks.schema import RowData, checked, distinct, row_of, text_of
from envs.types import Row

NAME = "userllm"
Source = Literal["prism", "commonsense_qa", "natural_questions"]
TRUE, FALSE = ("1", "1.0", "true", "yes", "y"), ("", "0", "0.0", "false", "no", "n", "none")
LEAD = re.compile(r"\A.*assistant language model to\b[\s:—-]*", re.IGNORECASE | re.DOTALL)
"""Published intents begin with an instruction to a model; only what follows is the person's intent."""


class Moment(RowData):
    """The validated data of one row: the moment at which the user's next turn is asked for."""

    source: Source
    intent: Annotated[str, Field(min_length=1)]
    history: str
    """The conversation so far as text; empty at the first turn."""
    last: bool
    """The real user ended the conversation here."""
    choices: tuple[str, ...]
    """Answer options of the user's question (commonsense_qa)."""
    question: str
    suggestion: str
    """What the assistant proposes instead (natural_questions)."""

    @model_validator(mode="after")
    def _check(self) -> Moment:
        if self.source == "commonsense_qa" and len(self.choices) < 2:
            raise ValueError("commonsense_qa needs two or more choices")
        if self.source == "natural_questions" and not self.suggestion:
            raise ValueError("natural_questions needs the assistant's suggestion")
        return self


def from_record(record: Mapping[str, Any], number: int, *, where: str) -> Row:
    """A row of one record. Raises DataError."""
    named = str(field(record, "source", where=where))
    data = checked(
        Moment,
        {
            "source": "prism" if "prism" in named.lower() else named,
            "intent": LEAD.sub("", text_of(record, "intent", "intent_summary", "opening_prompt")).strip(),
            "history": text_of(record, "conversation_history").strip(),
            "last": _flag(record.get("is_last_turn"), where),
            "choices": texts(record["choices"]) if record.get("choices") is not None else (),
            "question": text_of(record, "question"),
            "suggestion": text_of(record, "assistant_suggestion_turn").strip(),
        },
        where,
    )
    case = text_of(record, "id", "case_id", "index", default=str(number))
    turn = text_of(record, "turn")
    ident = distinct(f"{case}/{turn}" if turn else case, data)
    return row_of(NAME, ident, hash_json(data.intent)[:16], data)


def _flag(value: Any, where: str) -> bool:
    text = str(value).lower() if value is not None else ""
    if text not in (*TRUE, *FALSE):
        raise DataError(f"is_last_turn is no truth value: {value!r}", where=where, fix="give true or false")
    return text in TRUE
