"""What a judge or critic is asked: a versioned template with a closed reply schema. Pure data.

A spec's `sha` covers everything that changes the question, so that recorded verdicts are never reused for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel

from common.files import hash_json

JudgeRole = Literal["judge", "critic", "partner", "auditor"]


@dataclass(frozen=True)
class JudgeSpec:
    """One question. `instructions` is the system message; `template` is a str.format template of the user message.

    Fields named in `untrusted` hold text that models wrote: they are put into a delimited, escaped block.
    """

    id: str
    version: int
    instructions: str
    template: str
    schema: type[BaseModel]
    untrusted: tuple[str, ...] = ("transcript",)
    role: JudgeRole = "judge"
    temperature: float = 0.0
    max_tokens: int = 1024

    @cached_property
    def sha(self) -> str:
        """Content hash of the question."""
        return hash_json(
            {
                "id": self.id,
                "version": self.version,
                "instructions": self.instructions,
                "template": self.template,
                "schema": self.schema.model_json_schema(),
                "untrusted": self.untrusted,
                "temperature": self.temperature,
                "max_tokens": self.max_tokens,
            }
        )

    def check_fields(self, fields: Mapping[str, Any]) -> None:
        """Raise KeyError when the template needs a field that is missing."""
        self.template.format_map({**fields})
