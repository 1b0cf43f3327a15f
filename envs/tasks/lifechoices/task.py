"""LifeChoices: rows in OdysSim's format, which is the authors' record; four options, one right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import SEAT, ChoiceData, ChoiceEnv, Item, answer_text, samples_of, told_answer, unlabelled
from envs.tasks.files import decoded, field, texts
from envs.tasks.lifechoices.soul import permissive_choice
from envs.tasks.reading import Made, Reader, swapping
from envs.tasks.schema import checked, data_of
from envs.tasks.single import ONE_REPLY
from envs.types import Row

NAME = "lifechoices"
QUESTION = "Multiple Choice Question"
GROUNDING = (
    "You are {character}. What follows is your life up to now. Decide as {character} would in this moment, from what "
    "{character} knows, wants and fears, not as a reader or adviser would.\n\n{memory}"
)


class LifeChoice(ChoiceData):
    """One decision."""

    character: str
    memory: str
    scenario: str
    question: str


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="ROLE",
        version=1,
        metric=Metric("accuracy"),
        cluster="book",
        licence="none found (excerpts and summaries of novels)",
        env=lambda profile: ChoiceEnv(read_item, profile, soul=permissive_choice, hint=told_answer(read_item)),
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
            note="lifechoices_val.parquet; the authors' paper is arXiv:2404.12138, their files were not found",
        ),
        samples=samples_of(read_item),
        imposter=swapping("character", "memory"),
    )


def read_item(row: Row) -> Item:
    """The decision of a row. Raises DataError."""
    d = data_of(LifeChoice, row)
    system = GROUNDING.format(character=d.character, memory=d.memory)
    return Item(f"{d.scenario}\n\n{d.question}", d.choices, d.index, system)


def _make(record: Mapping[str, Any], where: str) -> Made:
    character = str(field(record, "character_name", where=where))
    asked = decoded(field(record, QUESTION, where=where))
    choices = unlabelled(texts(field(asked, "Options", where=where)))
    yield (
        str(record.get("book") or character),
        checked(
            LifeChoice,
            {
                "character": character,
                "memory": str(field(record, "input_text", where=where)),
                "scenario": str(field(asked, "Scenario", where=where)),
                "question": str(field(asked, "Question", where=where)),
                "choices": choices,
                "answer": answer_text(field(asked, "Correct Answer", where=where), choices),
            },
            where,
        ),
    )


READ = Reader(NAME, _make, (NAME,))

EXAMPLES: Sequence[Mapping[str, Any]] = (
    {
        "data_source": "lifechoices",
        "prompt": [{"role": "user", "content": "…"}],
        "reward_model": {"ground_truth": "B"},
        "extra_info": {
            "index": 0,
            "book": "The Salt Road (invented)",
            "character_name": "Marta Oyelaran",
            "input_text": (
                "Marta grew up on the salt pans and swore to her dying father that she would never sell them. Twice "
                "she turned away the company's agent. Last winter she let her brother go to the city alone."
            ),
            "Multiple Choice Question": {
                "Scenario": "The company's agent returns with an offer that would clear every debt of the family.",
                "Question": "What does Marta do?",
                "Options": [
                    "She signs at once, glad to be free of the pans.",
                    "She sends him away and writes to her brother for help.",
                    "She asks for twice the sum.",
                    "She leaves the decision to the village council.",
                ],
                "Correct Answer": "B",
            },
        },
    },
    {
        "data_source": "lifechoices",
        "extra_info": {
            "index": 1,
            "book": "Harbour Lights (invented)",
            "character_name": "Ilse",
            "input_text": "Ilse has hidden her fear of the water since the night the ferry sank.",
            "Multiple Choice Question": {
                "Scenario": "A child falls from the quay; nobody else is near.",
                "Question": "What does Ilse do?",
                "Options": [
                    "A. She jumps in.",
                    "B. She freezes.",
                    "C. She runs for the harbour master.",
                    "D. She prays.",
                ],
                "Correct Answer": "A. She jumps in.",
            },
        },
    },
)
