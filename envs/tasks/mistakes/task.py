"""Mistakes (MISTAKE, arXiv:2510.11502; items of the Eedi competition): OdysSim's rows, one per misconception."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import SEAT, ChoiceData, ChoiceEnv, Item, samples_of, told_answer
from envs.tasks.files import field
from envs.tasks.reading import Made, Reader, cluster_of, swapping
from envs.tasks.schema import checked, data_of
from envs.tasks.single import ONE_REPLY
from envs.types import Row

NAME = "mistakes"
GROUNDING = (
    "You are a pupil, and you hold one wrong idea about mathematics without knowing that it is wrong: {idea} You "
    "apply it wherever it seems to fit, and you give the result that it leads to, or the closest option."
)


class Mistake(ChoiceData):
    """A question and a misconception; the answer is the option that the misconception leads to."""

    question: str
    misconception: str
    option: str
    """The letter of that option in the published row: results are reported for each."""


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="ROLE",
        version=1,
        metric=Metric("accuracy"),
        cluster="question",
        licence="terms of the Eedi competition (Kaggle)",
        env=lambda profile: ChoiceEnv(read_item, profile, hint=told_answer(read_item)),
        rows=no_rows(NAME),
        examples=READ.examples(EXAMPLES),
        read=READ,
        seats=(SEAT,),
        profiles=("strict", "soul"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source(
            "https://huggingface.co/datasets/sunweiwei/sim-eval-data",
            note="mistakes_val.parquet; items from the Eedi Mining Misconceptions competition",
        ),
        part=lambda row: f"target {row.data['option']}",
        samples=samples_of(read_item),
        imposter=swapping("misconception"),
    )


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = data_of(Mistake, row)
    idea = d.misconception if d.misconception.endswith((".", "!", "?")) else f"{d.misconception}."
    return Item(d.question, d.choices, d.index, GROUNDING.format(idea=idea))


def _make(record: Mapping[str, Any], where: str) -> Made:
    options = {
        letter: str(text).strip() for letter in "ABCD" if (text := record.get(f"Answer{letter}Text")) is not None
    }
    target = str(field(record, "TargetOption", "target_option", where=where)).strip().upper()
    question = str(field(record, "QuestionText", "question", where=where))
    yield (
        str(record.get("QuestionId") or cluster_of(question)),
        checked(
            Mistake,
            {
                "question": question,
                "misconception": str(field(record, "MisconceptionName", "misconception_text", where=where)).strip(),
                "choices": tuple(options.values()),
                "answer": options.get(target, f"no option {target!r}"),
                "option": target,
            },
            where,
        ),
    )


READ = Reader(NAME, _make, (NAME,))

EXAMPLES: Sequence[Mapping[str, Any]] = (
    {
        "data_source": "mistakes",
        "reward_model": {"ground_truth": "C"},
        "extra_info": {
            "index": 0,
            "QuestionText": "What is 1/2 + 1/3?",
            "AnswerAText": "5/6",
            "AnswerBText": "1/6",
            "AnswerCText": "2/5",
            "AnswerDText": "1/5",
            "MisconceptionId": 7,
            "MisconceptionName": "Adds the numerators and adds the denominators",
            "TargetOption": "C",
            "TargetAnswer": "2/5",
        },
    },
    {
        "data_source": "mistakes",
        "extra_info": {
            "index": 1,
            "QuestionText": "What is 1/2 + 1/3?",
            "AnswerAText": "5/6",
            "AnswerBText": "1/6",
            "AnswerCText": "2/5",
            "AnswerDText": "1/5",
            "MisconceptionName": "Multiplies fractions when asked to add them.",
            "TargetOption": "B",
        },
    },
)
