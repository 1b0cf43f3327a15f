"""SocSci210 rows in OdysSim's format: a survey's text, the numeric answer, and the scale. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from envs.tasks.files import field, prompt_text
from envs.tasks.reading import Made, Reader
from envs.tasks.schema import RowData, checked

NAME = "socsci210"
Kind = Literal["ordinal", "binary", "categorical"]
ONLY_RETURN = re.compile(r"\bOnly return\b", re.IGNORECASE)
NOTHING_ELSE = re.compile(r",?\s*(?:and\s+)?nothing else\b", re.IGNORECASE)
"""The survey texts demand a bare number; the words that forbid anything beside it go, the scale's words stay."""


class Response(RowData):
    """One respondent's answer to one question."""

    text: str = Field(min_length=1)
    """Who the respondent is, what was shown, and the question."""
    kind: Kind
    response: float
    low: float
    high: float
    study: str
    group: str
    """Study, condition and question: answers of one group are answers to the same thing."""

    @model_validator(mode="after")
    def _response_lies_on_the_scale(self) -> Response:
        if self.low > self.high or not self.low <= self.response <= self.high:
            raise ValueError(f"the answer {self.response:g} is not on the scale {self.low:g} to {self.high:g}")
        return self


def make(record: Mapping[str, Any], where: str) -> Made:
    """The row of one record."""
    text = prompt_text(record, where=where)
    kind = str(record.get("response_type") or "ordinal").strip().lower()
    # OdysSim's own defaults where a row does not say its scale.
    low = record["r_min"] if record.get("r_min") is not None else 0
    high = record["r_max"] if record.get("r_max") is not None else (1 if kind == "binary" else 7)
    study = str(_first(record, "study_id", "study") or "unnamed study")
    condition = _first(record, "condition_id", "condition_num", "condition")
    question = _first(record, "outcome_id", "task_num", "outcome")
    values = {
        "text": NOTHING_ELSE.sub("", ONLY_RETURN.sub("Answer with", text)).strip(),
        "kind": kind,
        "response": field(record, "response", where=where),
        "low": low,
        "high": high,
        "study": study,
        "group": f"{study} / {condition} / {question}",
    }
    yield study, checked(Response, values, where)


def _first(record: Mapping[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


READ = Reader(NAME, make, (NAME,))
