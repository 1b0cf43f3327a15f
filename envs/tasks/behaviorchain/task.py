"""BehaviorChain: the prompt, the profiles, and the authors' measures of whole chains."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from envs.registry import FeedbackPolicy, Metric, Source, TaskSpec, no_rows
from envs.tasks.behaviorchain.author import cumulative_accuracy, longest_chain, read_letter
from envs.tasks.behaviorchain.rows import NAME, READ, Step
from envs.tasks.choice import LETTER_TAG, LETTERS, SEAT, ChoiceEnv, Item, index_of, samples, told_answer
from envs.tasks.epochs import by_epoch
from envs.tasks.reading import swapping
from envs.tasks.schema import data_of
from envs.tasks.single import ONE_REPLY
from envs.types import Episode, Outcome, Row, Score, Seat

GROUNDING = "You are {character}.\n\nWho you are:\n{profile}"
SOUL_TAG = re.compile(r"<answer>\s*([ABCD])\s*</answer>", re.IGNORECASE)


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="ROLE",
        version=1,
        metric=Metric("accuracy"),
        cluster="character",
        licence="README says Apache-2.0, no licence file; the data (novels, biographies) only from the authors",
        env=lambda profile: ChoiceEnv(read_item, profile, author_rule, told_answer(read_item), soul_rule),
        rows=no_rows(NAME),
        examples=READ.examples(EXAMPLES),
        read=READ,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        splits=("test",),
        source=Source("https://github.com/O-L1RU1/BehaviorChain", "22ba23b", note="data on request by e-mail"),
        aggregate=chain_measures,
        samples=_samples,
        imposter=swapping("character", "profile", "history"),
    )


def read_item(row: Row) -> Item:
    """The next step of a row's chain. Raises DataError."""
    d = data_of(Step, row)
    system = GROUNDING.format(character=d.character, profile=d.profile)
    if d.history:
        system += f"\n\nWhat has happened to you:\n{d.history}"
    done = "\n".join(
        f"{number}. {link.context}" + (f" You: {link.behavior}" if link.behavior else "")
        for number, link in enumerate(d.chain, start=1)
    )
    before = f"Since then:\n{done}\n\n" if done else ""
    return Item(f"{before}Now:\n{d.context}\n\nWhat do you do next?", d.choices, d.index, system)


def author_rule(item: Item, reply: str) -> int | None:
    """The authors' letter, which is lower-case and before the last ")"; our prompt's tag stands for it."""
    letter = read_letter(LETTER_TAG.sub(lambda found: f"{found.group(1).lower()})", reply))
    return LETTERS.index(letter.upper()) if letter and letter in LETTERS[: len(item.options)].lower() else None


def soul_rule(item: Item, reply: str) -> int | None:
    """The first tagged letter of the whole reply, thoughts included (spec: odyssim 3.12)."""
    found = SOUL_TAG.search(reply)
    return index_of(item, found.group(1)) if found else None


def chain_measures(episodes: Sequence[Episode]) -> dict[str, float]:
    """The authors' three numbers: accuracy, CAM and longest chain, each a mean over chains.

    Each epoch of a character is a chain. One with an unscored or missing step is left out: an unknown answer would
    cut it, and steps that do not follow each other are no chain.
    """
    chains: dict[tuple[str, int], dict[int, Outcome | None]] = defaultdict(dict)
    for epoch, plays in enumerate(by_epoch(episodes)):
        for episode in plays:
            chains[episode.row.cluster, epoch][int(episode.row.data["step"])] = episode.outcomes.get(SEAT)
    results = []
    for steps in chains.values():
        right = [int(o.value == 1.0) for _, o in sorted(steps.items()) if isinstance(o, Score)]
        if len(right) == len(steps) == max(steps) + 1:
            results.append(right)
    if not results:
        return {}
    n = len(results)
    return {
        "accuracy, mean over characters": sum(sum(r) / len(r) for r in results) / n,
        "cumulative accuracy (CAM), mean over characters": sum(cumulative_accuracy(r) for r in results) / n,
        "longest chain, mean over characters": sum(longest_chain(r) for r in results) / n,
    }


def _record(index: int, chain: Sequence[Mapping[str, str]], context: str, letter: str) -> dict[str, Any]:
    raw = {
        "persona_name": "Tomas Verne",
        "profile_text": "A clockmaker who trusts machines more than people and never lets a promise go unkept.",
        "history_truncated": [{"chapter_num": "1", "chapter_content": "Tomas promises the mayor a clock by spring."}],
        "prior_chain": list(chain),
        "current_context": context,
        "options_dict": {
            "A": "He works through the night.",
            "B": "He writes that the clock will be late.",
            "C": "He sells the workshop.",
            "D": "He blames his apprentice in public.",
        },
        "right_option_letter": letter,
    }
    return {"data_source": "behavior_chain", "extra_info": {"index": index, "raw": json.dumps(raw)}}


FIRST = "The main wheel cracks a week before spring."
EXAMPLES: Sequence[Mapping[str, Any]] = (
    _record(0, [], FIRST, "A"),
    _record(1, [{"context": FIRST, "behavior": "He works through the night."}], "The new wheel does not fit.", "B"),
)


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    return [*samples(read_item(row)), "a) because he promised (see b)", "<think><answer>B</answer></think>no"]
