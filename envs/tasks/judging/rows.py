"""Rows of judging tasks: RewardBench 2 (one of four, or many with ties) and RM-R1 (one of two). Pure.

The order in which candidates are shown is a function of the row's content, so that no position is the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.errors import DataError
from common.files import hash_json
from common.seeds import derive_rng
from envs.tasks.choice import LETTERS
from envs.tasks.files import field, texts
from envs.tasks.schema import RowData, checked, row_of, text_of
from envs.types import Row

REWARDBENCH, RM_R1 = "rewardbench2", "rm_r1"
Text = Annotated[str, Field(min_length=1)]


class Contest(RowData):
    """A question and its candidate answers, in the order they are shown."""

    question: str
    candidates: Annotated[tuple[Text, ...], Field(min_length=2, max_length=len(LETTERS))]
    right: Annotated[tuple[int, ...], Field(min_length=1)]
    """Indices of the right candidates: one, or several equally good ones where answers are rated."""
    asks: Literal["choice", "ratings"]
    subset: str
    pair: str
    """RewardBench 2 has two questions per pair of the ties subset: "ref" and "tied"."""
    sample: Literal["", "ref", "tied"]

    @model_validator(mode="after")
    def _check(self) -> Contest:
        places = set(range(len(self.candidates)))
        if len(set(self.right)) != len(self.right) or not set(self.right) < places:
            raise ValueError("the right candidates are some, not all, of the candidates")
        if self.asks == "choice" and len(self.right) != 1:
            raise ValueError("a choice has one right candidate")
        return self

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.candidates)]


def rewardbench_row(record: Mapping[str, Any], number: int, *, where: str) -> Row:
    """A row of RewardBench 2 in OdysSim's form: the first `num_correct` candidates are right. Raises DataError."""
    candidates = [text.strip() for text in texts(field(record, "candidates", where=where))]
    ties = text_of(record, "subset") == "Ties"
    ident = text_of(record, "id", "index", default=str(number))
    return _row(
        REWARDBENCH,
        ident,
        candidates,
        int(record.get("num_correct") or 1) if ties else 1,
        {
            "question": text_of(record, "prompt"),
            "asks": "ratings" if ties else "choice",
            "subset": text_of(record, "subset"),
            "pair": text_of(record, "pair_id"),
            "sample": text_of(record, "sample_type") if ties else "",
        },
        where,
    )


def rm_r1_row(record: Mapping[str, Any], number: int, *, where: str) -> Row:
    """A pairwise row in RM-R1's forms: a question with two answers, or two conversations. Raises DataError."""
    first = field(record, "answer_a", "response_a", "conversation_1", "conversation_a", where=where)
    second = field(record, "answer_b", "response_b", "conversation_2", "conversation_b", where=where)
    winner = str(field(record, "winner", "answer", "ground_truth", "correct_letter", where=where)).strip().lower()
    if winner[-1:] not in ("a", "b"):
        raise DataError(f"the winner is neither a nor b: {winner!r}", where=where, fix="repair the row")
    candidates = [str(first).strip(), str(second).strip()]
    values = {
        "question": text_of(record, "question", "prompt_text", "prompt", "instruction"),
        "asks": "choice",
        "subset": text_of(record, "eval_suite", "domain", default="pairwise"),
        "pair": "",
        "sample": "",
    }
    ident = text_of(record, "id", "index", default=str(number))
    return _row(RM_R1, ident, candidates[:: 1 if winner[-1] == "a" else -1], 1, values, where)


def _row(task: str, ident: str, candidates: list[str], right: int, values: Mapping[str, Any], where: str) -> Row:
    """Candidates come right ones first and are shown in an order of their own."""
    identity = hash_json([values["question"], candidates])
    order = list(range(len(candidates)))
    derive_rng(0, "judging", identity).shuffle(order)
    shown = {"candidates": [candidates[i] for i in order], "right": sorted(order.index(i) for i in range(right))}
    # Pairs of answers to one question are not independent; two whole conversations stand for themselves.
    cluster = hash_json(values["question"]) if values["question"] else identity
    return row_of(task, ident, cluster[:16], checked(Contest, {**values, **shown}, where))
