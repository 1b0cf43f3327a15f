"""TwinVoice: the prompt, the profiles, and the numbers under both of the authors' denominators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.choice import LETTER_TAG, LETTERS, SEAT, ChoiceEnv, Item, samples, told_answer
from envs.tasks.reading import Reader, swapping
from envs.tasks.schema import data_of
from envs.tasks.single import ONE_REPLY
from envs.tasks.twinvoice.author import both_denominators, parse_choice, parse_comment
from envs.tasks.twinvoice.rows import NAME, SOURCES, Voice, make, read_rows
from envs.types import Episode, Row, Score, Seat


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="ROLE",
        version=1,
        metric=Metric("accuracy"),
        cluster="person",
        licence="none (posts of real people, PChatBot and others; novels of Project Gutenberg)",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule, hint=told_answer(read_item)),
        rows=no_rows(NAME),
        examples=Reader(NAME, make, SOURCES).examples(EXAMPLES),
        read=read_rows,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source(
            "https://github.com/TwinVoice/TwinBench",
            "505dd45",
            note="dataset/dimension_3; dimensions 1 and 2 on Hugging Face (bangdedadi/TwinVoice)",
        ),
        aggregate=accuracies,
        part=lambda row: f"dimension {row.data['dimension']}",
        samples=_samples,
        imposter=swapping("person", "persona", "history"),
    )


def read_item(row: Row) -> Item:
    """The question of a row. Raises DataError."""
    d = data_of(Voice, row)
    named = f"You are {d.person}, a character of a novel." if d.dimension == "3" else "You are one particular person."
    written = "\n".join(f"- {text}" for text in d.history)
    known = f"What you said before, oldest first:\n{written}" if written else ""
    system = "\n\n".join(part for part in (named, d.persona, known) if part)
    situation = "What happens now" if d.dimension == "3" else "Somebody writes"
    return Item(f"{situation}:\n{d.anchor}\n\nWhich of these is what you say to it?", d.choices, d.index, system)


def author_rule(item: Item, reply: str) -> int | None:
    """The authors' rules, with our prompt's answer tag standing for the JSON that their prompts ask for."""
    text = LETTER_TAG.sub(r"choice: \1", reply)
    letter = parse_choice(text) or parse_comment(text)
    return LETTERS.index(letter) if letter and letter in LETTERS[: len(item.options)] else None


def accuracies(episodes: Sequence[Episode]) -> dict[str, float]:
    """Accuracy under both denominators of the authors, over scored episodes."""
    scores = [o for e in episodes if isinstance(o := e.outcomes.get(SEAT), Score)]
    return both_denominators([None if score.format_error else score.value == 1.0 for score in scores])


EXAMPLES: Sequence[Mapping[str, Any]] = (
    {
        "data_source": "twinvoice",
        "reward_model": {"ground_truth": "1"},
        "extra_info": {
            "index": 0,
            "id": "example-0",
            "user_id": "u1",
            "dimension": "social",
            "history": [
                "AnchorPost: rain again. UserReply: lovely weather for ducks!!",
                "UserReply: ducks win, as ever",
            ],
            "anchor_post": "The picnic is called off because of the storm.",
            "choices": ["How sad.", "the ducks send their regards!!", "Please advise.", "I never liked picnics."],
            "answer_idx": 1,
        },
    },
    {
        "data_source": "twinvoice",
        "extra_info": {
            "index": 1,
            "user_id": "u2",
            "conversation_history": '["As I wrote in my letter of Monday, I must decline.", "Yours, with regret"]',
            "anchor_post": "Will you come on Friday?",
            "answer_choices": '["nope", "yesss", "I regret that I must decline once more.", "who is asking"]',
            "answer_idx": 2,
        },
    },
)


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return [*samples(read_item(row)), '{"choice": "A"}', '{"predicted_comment": "B", "reasoning": "my tone"}']
