"""Pieces of reply schemas that judges share: a short reasoning first, then a bounded whole number. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    """Base of the replies that judges and critics give: closed and typed; a number written as text is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ZeroToTen(Reply):
    """0 (worst) to 10 (best)."""

    reasoning: str
    score: Annotated[int, Field(ge=0, le=10)]


class OneToTen(Reply):
    """1 (worst) to 10 (best)."""

    reasoning: str
    score: Annotated[int, Field(ge=1, le=10)]


class OneToFive(Reply):
    """1 (worst) to 5 (best)."""

    reasoning: str
    score: Annotated[int, Field(ge=1, le=5)]


class Advice(Reply):
    """What a critic writes to the seat."""

    feedback: str
