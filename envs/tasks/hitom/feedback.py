"""Where the belief tracking of a wrong answer went astray, by rule, and which events a chain really knows. Pure.

The text names the wrong choice and the event that misled, never the right container or its letter
(tests/envs/tasks/test_hitom_feedback.py). It is still written with the answer known, because only the answer tells
that a choice is wrong: `sees_gold` is true for everything but the remark on format.
"""

from __future__ import annotations

from collections.abc import Sequence

from envs.env import Feedback
from envs.tasks.hitom.rows import Item
from envs.tasks.hitom.sentences import parse, parse_question, sentence
from envs.tasks.hitom.world import Chain, Exit, Move, Place, Rules, Scene, Story, Tell, trace

FORMAT_REMARK = "Give exactly one choice, written as <answer>choice</answer>."


def format_feedback() -> Feedback:
    """For a reply without a readable answer."""
    return Feedback(FORMAT_REMARK, sees_gold=False)


def wrong_answer_feedback(item: Item, chosen: str) -> Feedback | None:
    """Why `chosen` is wrong. None when the story or the question is not of the benchmark's form."""
    asked = parse_question(item.question)
    story = parse(item.story)
    if asked is None or asked[1] not in story.things:
        return None
    return Feedback(f"The answer {chosen} is wrong. {_reason(story, *asked, chosen, item.rules)}", sees_gold=True)


def known_events(item: Item) -> list[str] | None:
    """The sentences that set the asked belief, oldest first: the last one holds the answer. None: not traceable."""
    asked = parse_question(item.question)
    story = parse(item.story)
    updates = trace(story, *asked, item.rules) if asked else []
    if not updates or updates[-1].container != item.answer:
        return None
    lines = []
    for update in updates:
        event = story.events[update.index]
        shown = (
            event if isinstance(event, Place | Move | Tell) else Place(asked[1] if asked else "", update.container)
        )
        lines.append(sentence(shown))
    return lines


def privileged_context(item: Item) -> str | None:
    """`known_events` and the answer that follows, for a teacher who may know it."""
    events = known_events(item)
    return None if events is None else f"What counts here: {' '.join(events)} So the answer is {item.answer}."


def _reason(story: Story, chain: Chain, thing: str, chosen: str, rules: Rules) -> str:
    last = None
    for index, event, scene in story.scenes():
        if isinstance(event, Place | Move | Tell) and event.thing == thing and event.container == chosen:
            last = (index, event, scene)
    if last is None:
        return f"Nothing in the story puts the {thing} there."
    index, event, scene = last
    if any(update.index == index for update in trace(story, chain, thing, rules)):
        return f"That was known at first, but {_everybody(chain)} {_learned(chain)} of a later place of the {thing}."
    if isinstance(event, Tell):
        return _unbelieved(event, chain, scene)
    return _unseen(event, chain, scene, story, index)


def _everybody(chain: Sequence[str]) -> str:
    if not chain:
        return "the story"
    names = list(dict.fromkeys(chain))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _learned(chain: Sequence[str]) -> str:
    return "tells" if not chain else "knew" if len(set(chain)) == 1 else "all knew"


def _unseen(event: Place | Move, chain: Chain, scene: Scene, story: Story, index: int) -> str:
    absent = next((agent for agent in chain if not scene.sees(agent)), None)
    if absent is None:
        return "A claim made later counts for what is believed."
    left = any(isinstance(e, Exit) and e.agent == absent for e in story.events[:index])
    if isinstance(event, Place):
        return f"{absent} was not there to see that."
    when = "had left before" if left else "was not there when"
    return f"{absent} {when} {event.agent} moved the {event.thing} to the {event.container}."


def _unbelieved(claim: Tell, chain: Chain, scene: Scene) -> str:
    if not chain:
        return f"{claim.speaker} only claimed that; a claim moves nothing."
    outside = [agent for agent in chain if claim.listener and agent not in (claim.speaker, claim.listener)]
    if outside:
        return f"{outside[0]} did not hear what {claim.speaker} told {claim.listener} in private."
    if chain[-1] == claim.speaker and len(chain) == 1:
        return f"{claim.speaker} claimed that, which does not change what {claim.speaker} thinks."
    doubter = chain[-2] if chain[-1] == claim.speaker else chain[-1]
    if scene.trusts(doubter, claim.speaker):
        return f"The claim of {claim.speaker} does not reach so far into what the others think."
    return f"{doubter} does not trust {claim.speaker}, who did not leave after {doubter}."
