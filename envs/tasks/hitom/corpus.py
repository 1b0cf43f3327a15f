"""Hi-ToM conversations for midtraining: a story, then questions of several orders, each answered aloud.

Pure. `envs.tasks.write_corpus` puts the rows on disk.

An answer tells the places that the asked chain knows of, in order, and ends with the last one in `<answer>`. The
first turn has the very form of the task's prompt, so a model trained here can be asked any of the task's questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from common.seeds import derive_rng
from envs.tasks.hitom.feedback import known_events
from envs.tasks.hitom.generator import Difficulty, Part, generate
from envs.tasks.hitom.rows import Item, PromptStyle, problem_rows, prompt_text, read_item

SOURCE = "tom_hitom_generated"


@dataclass(frozen=True)
class CorpusShape:
    """How stories become conversations."""

    questions: int = 5
    """Questions asked about one story, at most; they come in random order."""
    informed_share: float = 0.0
    """Share of conversations whose first message also holds the privileged context."""


def spoken_answer(item: Item) -> str:
    """What a good reader says: the known places of the object in order, then the answer."""
    places = [event.rstrip(".").rpartition(" ")[2] for event in known_events(item) or ()]
    return f"{', '.join(places)}. <answer>{item.answer}</answer>"


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
        items = rng.sample(items, min(shape.questions, len(items)))
        yield {
            "data_source": SOURCE,
            "id": problem.story_hash,
            "messages": _messages(items),
            "extra_info": {"part": part, "orders": [item.order for item in items]},
        }


def _messages(items: Sequence[Item]) -> list[dict[str, str]]:
    messages = []
    for number, item in enumerate(items):
        messages.append({"role": "user", "content": prompt_text(item) if number == 0 else item.question})
        messages.append({"role": "assistant", "content": spoken_answer(item)})
    return messages
