"""What a customer's turns are like: 19 features in four dimensions. Pure; regular expressions of our own.

D1 conversation: politeness, short messages (at most 3 words), dashes (the source's "formality"), bare
acknowledgements, variation of length, a repeated trigram, speaking like an agent. D2 information: share of words in
the first two messages, identifiers per turn, words per turn, words of the opening. D3 clarification: uncertainty,
certainty, and questions that push back, clarify or ask for information (exclusive, in that order). D4 reaction:
emotion, accusation, change of mind. Rates are shares of turns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SHORT_WORDS = 3
REPEATS = 10


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


POLITE = _any(r"\bplease\b", r"\bthank(s| you)\b", r"\bappreciate\b", r"\bsorry\b", r"\bexcuse me\b", r"\bkindly\b")
DASH = re.compile("[–—]")
ACKNOWLEDGE = re.compile(
    r"\W*(?:ok(?:ay)?|yes|yep|yeah|sure|no|nope|got it|thanks?|thank you|great|perfect|alright|fine|correct)"
    r"(?:\W+(?:thanks?|thank you|please|great|that works|sounds good))?\W*",
    re.IGNORECASE,
)
AGENT_SPEECH = _any(
    r"\bhow (?:can|may) i (?:help|assist)\b", r"\bis there anything else i can\b",
    r"\bi(?:'d| would) be happy to help\b",
    r"\blet me (?:check|look) (?:that|this) (?:up )?for you\b", r"\bas an ai\b",
)  # fmt: skip
IDENTIFIER = re.compile(
    r"#\w+|\b(?=\w*\d)(?=\w*[A-Z_])[\w-]{5,}\b|\b\d{5,}\b|\b[\w.]+@[\w.]+\b|\b[a-z]+_[a-z]+_\d+\b"
)
UNCERTAIN = _any(r"\bnot sure\b", r"\bi think\b", r"\bmaybe\b", r"\bi guess\b", r"\bprobably\b", r"\bperhaps\b",
                 r"\bdon'?t (?:know|remember)\b", r"\bmight\b")  # fmt: skip
CERTAIN = _any(r"\bdefinitely\b", r"\bcertainly\b", r"\babsolutely\b", r"\bexactly\b", r"\bi(?:'m| am) sure\b",
               r"\bof course\b", r"\bi know\b", r"\bno doubt\b")  # fmt: skip
PUSHBACK = _any(r"\bwhy\b[^?]*\?", r"\bbut\b[^?]*\?", r"\bare you sure\b", r"\breally\b[^?]*\?", r"\bhow come\b")
CLARIFY = _any(r"\bwhat do you mean\b", r"\b(?:could|can) you (?:explain|clarify)\b", r"\bdo you mean\b",
               r"\bso (?:you|that|it)\b[^?]*\?", r"\bdoes that mean\b", r"\bto confirm\b")  # fmt: skip
EMOTION = _any(r"\bfrustrat\w+", r"\bridiculous\b", r"\bannoy\w+", r"\bupset\b", r"\bangry\b", r"\bdisappoint\w+",
               r"\bunbelievable\b", r"\bworried\b", r"\bugh\b", r"\bcome on\b", r"!!+")  # fmt: skip
ACCUSATION = _any(r"\bwrong\b", r"\bunacceptable\b", r"\byour (?:fault|mistake|error)\b", r"\bblame\b",
                  r"\byou(?:'re| are) not (?:listening|helping)\b", r"\byou (?:said|told|promised)\b",
                  r"\bincorrect\b", r"\bmislead\w*")  # fmt: skip
PIVOT = _any(r"\binstead\b", r"\bwhat about\b", r"\bhow about\b", r"\bi(?:'d| would) (?:prefer|rather)\b",
             r"\bactually\b", r"\bon second thought\b", r"\bnever ?mind\b", r"\bchanged my mind\b")  # fmt: skip

DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "D1": (
        "politeness",
        "short_messages",
        "dashes",
        "acknowledge_only",
        "length_variation",
        "repeats",
        "agent_speech",
    ),
    "D2": ("front_load", "identifiers", "words_per_turn", "opening_words"),
    "D3": ("uncertainty", "certainty", "pushback_questions", "clarifying_questions", "information_questions"),
    "D4": ("emotion", "accusation", "pivot"),
}
NAMES = {"D1": "conversation", "D2": "information", "D3": "clarification", "D4": "reaction"}


@dataclass(frozen=True)
class Turn:
    """One customer turn. after_error: it follows an error of the agent (errors.py)."""

    text: str
    after_error: bool = False


Features = Mapping[str, float]


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def features(turns: Sequence[Turn]) -> Features:
    """All features of one conversation. Raises ValueError for one without customer turns."""
    if not turns:
        raise ValueError("a conversation without a customer turn has no features")
    texts = [turn.text for turn in turns]
    lengths = np.array([len(words(text)) for text in texts], dtype=np.float64)
    questions = Counter(question_kind(text) for text in texts)
    total = float(lengths.sum())
    return {
        "politeness": _rate(POLITE, texts),
        "short_messages": float(np.mean(lengths <= SHORT_WORDS)),
        "dashes": _rate(DASH, texts),
        "acknowledge_only": sum(bool(ACKNOWLEDGE.fullmatch(text)) for text in texts) / len(texts),
        "length_variation": float(lengths.std() / lengths.mean()) if total else 0.0,
        "repeats": float(_most_repeated(texts) > REPEATS),
        "agent_speech": _rate(AGENT_SPEECH, texts),
        "front_load": float(lengths[:2].sum() / total) if total else 0.0,
        "identifiers": sum(len(IDENTIFIER.findall(text)) for text in texts) / len(texts),
        "words_per_turn": float(lengths.mean()),
        "opening_words": float(lengths[0]),
        "uncertainty": _rate(UNCERTAIN, texts),
        "certainty": _rate(CERTAIN, texts),
        "pushback_questions": questions["pushback"] / len(texts),
        "clarifying_questions": questions["clarifying"] / len(texts),
        "information_questions": questions["information"] / len(texts),
        **reactions(texts),
    }


def reactions(texts: Sequence[str]) -> Features:
    """The three rates of D4."""
    return {"emotion": _rate(EMOTION, texts), "accusation": _rate(ACCUSATION, texts), "pivot": _rate(PIVOT, texts)}


def question_kind(text: str) -> str:
    """pushback, clarifying, information, or "" for no question."""
    if "?" not in text:
        return ""
    if PUSHBACK.search(text):
        return "pushback"
    return "clarifying" if CLARIFY.search(text) else "information"


def _rate(pattern: re.Pattern[str], texts: Sequence[str]) -> float:
    return sum(bool(pattern.search(text)) for text in texts) / len(texts)


def _most_repeated(texts: Sequence[str]) -> int:
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        tokens = words(text)
        grams.update(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return max(grams.values(), default=0)
