"""HumanLLM item selection (KDD 2026): rank five of twenty candidates; the score is 1/rank of what was bought.

Rows are OdysSim's: a text with the shopper, numbered history entries and numbered candidates, and the candidates as a
list. Profiles: strict, one answer block of exactly five different letters (spaces and case are free); soul (OdysSim's
rule), the first block of that form, in capitals and without spaces. A longer list, a shorter one or a repeated letter
is a format error: naming more never pays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import Field, model_validator

from envs.env import Feedback
from envs.registry import FeedbackPolicy, Metric, Profile, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTERS
from envs.tasks.files import field, prompt_text, texts
from envs.tasks.reading import Made, Reader, cluster_of, swapping
from envs.tasks.schema import RowData, checked, data_of
from envs.tasks.single import ONE_REPLY, SEAT, Asked, SingleTurn, chat, only_answer, without_thought
from envs.types import Message, Outcome, Row, Score, Seat

NAME = "humanllm"
TOP = 5
GROUNDING = "You are this shopper, about to choose what to buy next.\n\n{shopper}"
FORM = (
    "Which five would you most likely buy next? Think first if you like, then give five different letters, the most "
    "likely first, as <answer>1st,2nd,3rd,4th,5th</answer>."
)
SOUL_LIST = re.compile(rf"<answer>([A-T](?:,[A-T]){{{TOP - 1}}})</answer>")
FIRST_CANDIDATE = re.compile(r"Candidate\s*1\s*:")
HISTORY = re.compile(r"[\s,;]*History\s*(\d+)\s*:\s*")


class Selection(RowData):
    """A shopper and the candidates; `bought` is the position of what the shopper bought."""

    shopper: str = Field(min_length=1)
    candidates: tuple[str, ...]
    bought: int = Field(ge=0)

    @model_validator(mode="after")
    def _bought_is_a_candidate(self) -> Selection:
        if not TOP <= len(self.candidates) <= len(LETTERS):
            raise ValueError(f"a selection has {TOP} to {len(LETTERS)} candidates")
        if self.bought >= len(self.candidates):
            raise ValueError("what was bought is none of the candidates")
        return self


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="EVAL",
        version=1,
        metric=Metric(f"MRR@{TOP}"),
        cluster="shopper",
        licence="none found (Amazon reviews)",
        env=SelectionEnv,
        rows=no_rows(NAME),
        read=READ,
        examples=READ.examples(EXAMPLES),
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://huggingface.co/datasets/sunweiwei/sim-eval-data", note="humanllm_val.parquet"),
        samples=_samples,
        imposter=swapping("shopper"),
    )


@dataclass(frozen=True)
class SelectionEnv(SingleTurn[Selection]):
    """One seat ranks the candidates once."""

    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Selection]:
        return Asked(data_of(Selection, row))

    def messages(self, question: Selection) -> Sequence[Message]:
        listed = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, question.candidates, strict=False))
        return chat(GROUNDING.format(shopper=question.shopper), f"{listed}\n\n{FORM}")

    def score(self, state: Asked[Selection]) -> Mapping[Seat, Outcome]:
        ranked = read_ranking(state.question, state.reply or "", self.profile)
        if ranked is None:
            return {SEAT: Score(0.0, format_error=True, explanation=f"no list of {TOP} different letters")}
        rank = ranked.index(state.question.bought) + 1 if state.question.bought in ranked else None
        parts = {f"hit@{TOP}": float(rank is not None), "top-1": float(rank == 1)}
        return {SEAT: Score(1.0 / rank if rank else 0.0, parts, explanation=f"rank {rank or 'none'}")}

    def feedback(self, state: Asked[Selection], seat: Seat) -> Feedback | None:
        """By rule: what is wrong with the form, or where in the list the bought item stood, without its letter."""
        ranked = read_ranking(state.question, state.reply or "", self.profile)
        if ranked is None:
            return Feedback(f"Your last reply was no list of {TOP} different letters. {FORM}", sees_gold=False)
        if state.question.bought not in ranked:
            named = ", ".join(LETTERS[i] for i in ranked)
            return Feedback(f"You bought none of {named}. Look again at what you bought before.", sees_gold=True)
        if ranked[0] == state.question.bought:
            return None
        return Feedback("What you bought is in your list, but not at its head. Order it again.", sees_gold=True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        d = data_of(Selection, row)
        return f"What you bought next: {LETTERS[d.bought]}: {d.candidates[d.bought]}"


def read_ranking(question: Selection, reply: str, profile: Profile) -> list[int] | None:
    """Positions of the five ranked candidates, the likeliest first; None without a list of the right form."""
    if profile == "soul":
        found = SOUL_LIST.search(without_thought(reply))
        given = found.group(1) if found else ""
    else:
        given = (only_answer(reply) or "").upper()
    ranked = [LETTERS.find(letter.strip()) for letter in given.split(",") if len(letter.strip()) == 1]
    known = [position for position in ranked if 0 <= position < len(question.candidates)]
    whole = len(ranked) == given.count(",") + 1 == TOP
    return ranked if whole and len(set(known)) == TOP else None


def _make(record: Mapping[str, Any], where: str) -> Made:
    text = prompt_text(record, where=where)
    first = FIRST_CANDIDATE.search(text)
    shopper = (text[: first.start()] if first else text).strip()
    shopper = HISTORY.sub(lambda found: f"\nHistory {found.group(1)}: ", shopper).strip()
    candidates = tuple(text.strip() for text in texts(field(record, "candidates", where=where)))
    letter = str(record.get("answer_letter") or "").strip().upper()
    bought = record["answer_index"] if record.get("answer_index") is not None else LETTERS.find(letter or "?")
    # What the shopper is and owns comes before the history: two rows of one shopper share it.
    who = HISTORY.split(shopper, maxsplit=1)[0] or shopper
    yield cluster_of(who), checked(Selection, {"shopper": shopper, "candidates": candidates, "bought": bought}, where)


READ = Reader(NAME, _make, (NAME,))

ITEMS = (
    "Cast-iron skillet", "Phone case", "Yoga mat", "Bread knife", "Dog leash", "Desk lamp", "Proofing basket",
    "Garden hose", "Novel", "Headphones", "Raincoat", "Puzzle", "Tea kettle", "Socks", "Toy train", "Notebook",
    "Water filter", "Bicycle bell", "Candle", "Flour, 10 kg",
)  # fmt: skip
TEXT = (
    "User: a baker at heart who buys for the kitchen. History 1: Dutch oven, History 2: Kitchen scale, "
    "History 3: Rye flour. "
)


def _record(index: int, bought: int) -> dict[str, Any]:
    listed = " ".join(f"Candidate {i}: {item}" for i, item in enumerate(ITEMS, start=1))
    extra = {
        "index": index,
        "task": "item_selection",
        "split": "test",
        "prompt_text": TEXT + listed,
        "candidates": list(ITEMS),
        "answer_index": bought,
        "answer_letter": LETTERS[bought],
        "answer_text": ITEMS[bought],
    }
    return {"data_source": "humanllm", "extra_info": extra}


EXAMPLES: Sequence[Mapping[str, Any]] = (_record(0, 6), _record(1, 19))


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    right = LETTERS[row.data["bought"]]
    others = [letter for letter in LETTERS[: len(row.data["candidates"])] if letter != right]
    everything = ",".join(LETTERS[: len(row.data["candidates"])])
    return [
        f"<answer>{','.join([right, *others[:4]])}</answer>",
        f"<answer>{','.join([*others[:4], right])}</answer>",
        f"<answer>{','.join(others[:5])}</answer>",
        f"<answer>{everything}</answer>",
        f"<answer>{','.join([right] * 5)}</answer>",
    ]
