"""HUMANUAL without a judge: which replies are usable, copying; and how verdicts and length become scores. Pure.

strict asks no judge about an empty reply, one with left-over markup, or one that repeats what the person read. Length
counts as `envs.tasks.length` says.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from envs.detectors import copying
from envs.registry import Profile
from envs.tasks.humanual.judges import ASPECTS, AspectVerdict, KeyPointVerdict, SoulVerdict
from envs.tasks.humanual.rows import Thread
from envs.tasks.length import WORD, length_factor, words
from envs.tasks.single import without_thought
from envs.types import Score

BLOCK = re.compile(r"<response>(.+?)</response>", re.DOTALL | re.IGNORECASE)
WHOLE_BLOCK = re.compile(r"\A<response>((?:(?!</?response>).)*)</response>\Z", re.DOTALL | re.IGNORECASE)
LEFT_OVER = re.compile(rf"</?(?:seed:)?(?:think|answer|response|{'|'.join(ASPECTS)})>", re.IGNORECASE)


@dataclass(frozen=True)
class Fault:
    """Why a reply earns nothing without being judged."""

    detail: str
    format_error: bool


def read_reply(text: str, profile: Profile) -> str:
    """The reply in what was said: without thoughts, and without `<response>` tags around it."""
    if profile == "strict":
        said = text.rpartition("</think>")[2].strip()
        found = WHOLE_BLOCK.match(said)
    else:
        said = without_thought(text)
        found = BLOCK.search(said)
    return found.group(1).strip() if found else said


def fault_of(reply: str, question: Thread) -> Fault | None:
    """What makes a reply worth nothing under strict, if anything."""
    if not WORD.search(reply):
        return Fault("an empty reply", format_error=True)
    if found := LEFT_OVER.search(reply):
        return Fault(f"markup {found.group(0)} in the reply", format_error=True)
    copied = copying.find(reply, (question.persona, *(turn.text for turn in question.thread)))
    return Fault(f"repeats what was read: {copied}", format_error=False) if copied else None


def aspect_score(verdict: AspectVerdict, reply: str, reference: str) -> Score:
    """strict: mean over the aspects that the person expresses, times the length factor."""
    aspects = {name: getattr(verdict, name) for name in ASPECTS}
    counted = {n: a.match for n, a in aspects.items() if a.expressed or n == "communication"}
    return _scored(counted, reply, reference, "strict")


def soul_score(verdict: SoulVerdict, reply: str, reference: str) -> Score:
    """soul: mean of the six, times the length factor."""
    return _scored({name: getattr(verdict, name).match for name in ASPECTS}, reply, reference, "soul")


def key_point_score(verdict: KeyPointVerdict) -> Score:
    """author: mean match of the key points minus the penalty, at least 0."""
    coverage = sum(p.match for p in verdict.key_points) / len(verdict.key_points)
    return Score(max(0.0, coverage - verdict.penalty), {"coverage": coverage, "penalty": verdict.penalty})


def _scored(matches: dict[str, float], reply: str, reference: str, profile: Profile) -> Score:
    judged = sum(matches.values()) / len(matches)
    factor = length_factor(reply, reference, profile)
    parts = {**matches, "judged": judged, "length factor": factor, "lexical F1": lexical_f1(reply, reference)}
    return Score(judged * factor, parts)


def lexical_f1(reply: str, reference: str) -> float:
    """F1 of the two bags of words: reported, never rewarded."""
    own, wanted = Counter(words(reply)), Counter(words(reference))
    shared = (own & wanted).total()
    return 2 * shared / (own.total() + wanted.total()) if shared else 0.0
