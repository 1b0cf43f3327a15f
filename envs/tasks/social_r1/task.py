"""Social-R1 (ToMBench-Hard items): rows in OdysSim's format, whose options stand inside the question's text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from common.errors import DataError
from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTERS, SEAT, ChoiceData, ChoiceEnv, Item, answer_text, samples_of, told_answer
from envs.tasks.files import field, prompt_text
from envs.tasks.reading import Made, Reader, cluster_of
from envs.tasks.schema import checked, data_of
from envs.tasks.single import ONE_REPLY
from envs.types import Row

NAME = "social_r1"
OPTION = re.compile(r"^[ \t]*\(?([A-Z])[.):][ \t]+(?=\S)", re.MULTILINE)


class SocialQuestion(ChoiceData):
    """A story and a question about it."""

    question: str


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=1,
        metric=Metric("accuracy"),
        cluster="story",
        licence="none found",
        env=lambda profile: ChoiceEnv(read_item, profile, hint=told_answer(read_item)),
        rows=no_rows(NAME),
        examples=READ.examples(EXAMPLES),
        read=READ,
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://huggingface.co/datasets/sunweiwei/sim-eval-data", note="social_r1_val.parquet"),
        samples=samples_of(read_item),
    )


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = data_of(SocialQuestion, row)
    return Item(d.question, d.choices, d.index)


def split_options(text: str, where: str) -> tuple[str, tuple[str, ...]]:
    """The question without its options, and the options. Raises DataError.

    Options are the last run of lines that begin with A, B, C, …; what follows a blank line after the last option
    belongs to the question (instructions on format). A story line such as "A. Smith left" is not taken for an option.
    """
    found = list(OPTION.finditer(text))
    run: list[re.Match[str]] = []
    for start in reversed([i for i, match in enumerate(found) if match.group(1) == "A"]):
        in_order = takewhile(lambda pair: pair[0].group(1) == pair[1], zip(found[start:], LETTERS, strict=False))
        run = [match for match, _ in in_order]
        if len(run) >= 2:
            break
    if len(run) < 2:
        raise DataError("no lines A., B., … with options", where=where, fix="write each option on its own line")
    ends = [*(match.start() for match in run[1:]), len(text)]
    last, _, rest = text[run[-1].end() :].partition("\n\n")
    options = [text[m.end() : end].strip() for m, end in zip(run[:-1], ends, strict=False)] + [last.strip()]
    return "\n\n".join(part for part in (text[: run[0].start()].strip(), rest.strip()) if part), tuple(options)


def _make(record: Mapping[str, Any], where: str) -> Made:
    question, choices = split_options(_text(record, where), where)
    given = record.get("answer_letter") or field(record, "answer_text", where=where)
    yield (
        cluster_of(question.split("\n")[0]),
        checked(
            SocialQuestion, {"question": question, "choices": choices, "answer": answer_text(given, choices)}, where
        ),
    )


def _text(record: Mapping[str, Any], where: str) -> str:
    """The question's text; in the raw format it is the prompt itself."""
    if record.get("prompt_text") or record.get("conversations"):
        return prompt_text(record, where=where)
    prompt = field(record, "prompt_text", "prompt", where=where)
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])


READ = Reader(NAME, _make, (NAME,))

EXAMPLES: Sequence[Mapping[str, Any]] = (
    {
        "data_source": "social_r1",
        "extra_info": {
            "index": 0,
            "prompt_text": (
                "Story: Noor tells Ben that the cake he baked is lovely, then feeds her slice to the dog.\n"
                "Question: What does Noor really think of the cake?\n"
                "Options:\nA. She loves it.\nB. She does not like it.\nC. She has not tasted it.\nD. She baked it."
            ),
            "answer_letter": "B",
            "answer_text": "B. She does not like it.",
        },
    },
    {
        "data_source": "social_r1",
        "extra_info": {
            "index": 1,
            "prompt_text": (
                "A. Weiss came late and said that the trams stood still. B. Kahn had come by tram, on time.\n"
                "What does B. Kahn believe?\nA) That A. Weiss lied.\nB) That the trams stood still.\n"
                "C) That the clock is wrong."
            ),
            "answer_text": "A) That A. Weiss lied.",
        },
    },
)
