"""Hi-ToM conversations for midtraining: a story, then questions of several orders, each answered aloud.

Pure. `envs.tasks.write_corpus` puts the rows on disk.

An answer tells what the asked chain saw, in order, and ends with the last place in `<answer>`. The
first turn has the very form of the task's prompt, so a model trained here can be asked any of the task's questions.
Some first turns also hold what training by reinforcement appends to a prompt: the privileged context of a teacher, or
feedback on a wrong answer, so that the model has met both before they are put to use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from pydantic import Field, model_validator

from common.config import Config
from common.errors import DataError
from common.seeds import derive_rng
from envs.tasks.hitom.feedback import privileged_context, wrong_answer_feedback
from envs.tasks.hitom.generator import MAX_ORDER, Difficulty, Part, generate
from envs.tasks.hitom.rows import Item, PromptStyle, problem_rows, prompt_text, read_item
from envs.tasks.hitom.sentences import parse, parse_question
from envs.tasks.hitom.world import Move, Stay, Tell, trace
from envs.tokens import with_feedback
from envs.types import Message

SOURCE = "tom_hitom_generated"


class CorpusShape(Config):
    """How stories become conversations."""

    questions: int = Field(default=2, ge=1)
    """Questions asked about one story, at most; they come in random order."""
    first_weights: tuple[float, ...] = (3.0, 3.0, 1.0, 1.0, 1.0)
    """How often questions of order 0, 1, … are asked first. The first answer is the one that must read the story:
    later ones can lean on it."""
    informed_share: float = Field(default=0.25, ge=0, le=1)
    """Share of conversations whose first message also holds the privileged context."""
    corrected_share: float = Field(default=0.15, ge=0, le=1)
    """Share of conversations whose first message also holds feedback on some wrong answer."""

    @model_validator(mode="after")
    def _fits(self) -> CorpusShape:
        if len(self.first_weights) != MAX_ORDER + 1 or min(self.first_weights) <= 0:
            raise ValueError(f"first_weights: {MAX_ORDER + 1} numbers above 0, one for each order")
        if self.informed_share + self.corrected_share > 1:
            raise ValueError("informed_share and corrected_share: together at most 1")
        return self


def spoken_answer(item: Item) -> str:
    """What a good reader says: what the asked chain saw, event by event, then the answer in the prompt's form."""
    answer = f" {item.answer} " if item.prompt == "brief" else item.letter
    return f"Seen: {', '.join(seen_events(item))}. <answer>{answer}</answer>"


def seen_events(item: Item) -> list[str]:
    """The asked chain's shared history in a few words an event: places, who moved it where, who stayed, who told."""
    story, asked = parse(item.story), parse_question(item.question)
    if asked is None:
        raise DataError("a question of another form", where=item.question, fix="speak only of generated questions")
    chain, thing = asked
    known = {update.index: update.container for update in trace(story, chain, thing, item.rules)}
    seen = []
    for index, event, scene in story.scenes():
        match event:
            case Move(agent, _, _) | Tell(agent, _, _, _) if index in known:
                seen.append(f"{agent} {known[index]}")
            case Stay(agent, _) if known and all(scene.sees(other) for other in chain):
                seen.append(f"{agent} stayed")
            case _ if index in known:
                seen.append(known[index])
    return seen


def conversations(
    part: Part,
    stories: int,
    seed: int,
    difficulty: Difficulty | None = None,
    *,
    prompt: PromptStyle = "rules",
    shape: CorpusShape | None = None,
) -> Iterator[dict[str, Any]]:
    """Corpus rows, one a story."""
    difficulty, shape = difficulty or Difficulty(), shape or CorpusShape()
    for number, problem in enumerate(generate(part, stories, seed, difficulty)):
        rng = derive_rng(seed, "hitom-corpus", part, number)
        items = [read_item(row) for row in problem_rows(problem, difficulty.rules, prompt)]
        items = _asked(items, rng, shape)
        yield {
            "data_source": SOURCE,
            "id": problem.story_hash,
            "messages": _messages(items, _hint(items[0], rng, shape)),
            "extra_info": {"part": part, "orders": [item.order for item in items]},
        }


def _asked(items: Sequence[Item], rng: Random, shape: CorpusShape) -> list[Item]:
    """The questions of one conversation: the first by its order's weight, the others in random order."""
    weights = [shape.first_weights[item.order] for item in items]
    first = rng.choices(range(len(items)), weights)[0]
    others = [item for number, item in enumerate(items) if number != first]
    return [items[first], *rng.sample(others, min(shape.questions, len(items)) - 1)]


def _hint(item: Item, rng: Random, shape: CorpusShape) -> str | None:
    """Privileged context, feedback on a wrong answer, or nothing."""
    draw = rng.random()
    if draw < shape.informed_share:
        return privileged_context(item)
    if draw < shape.informed_share + shape.corrected_share:
        wrong = rng.choice([choice for choice in item.choices if choice != item.answer])
        told = [choice for choice in item.choices if choice != item.answer and choice in item.story]
        feedback = wrong_answer_feedback(item, rng.choice(told) if told else wrong)
        return feedback.text if feedback else None
    return None


def _messages(items: Sequence[Item], hint: str | None) -> list[dict[str, str]]:
    """Prompt and answer of the first item, then question and answer of the others."""
    opening = [Message("user", prompt_text(items[0]))]
    messages = [
        *(opening if hint is None else with_feedback(opening, hint)),
        Message("assistant", spoken_answer(items[0])),
    ]
    for item in items[1:]:
        messages += [Message("user", item.question), Message("assistant", spoken_answer(item))]
    return [{"role": message.role, "content": message.content} for message in messages]
