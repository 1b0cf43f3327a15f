"""How a customer talks, as rates over turns: the features of tau-USI (arXiv:2603.11245), with word lists of our own.

Values are comparable between runs here and with human conversations measured here, not with published rows. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "D1 conversation": (
        *("politeness", "short", "dashes", "acknowledgement only", "length variation", "repetition"),
        "agent talk",
    ),
    "D2 information": ("front-loading", "identifiers", "words per turn", "opening words"),
    "D3 clarification": ("uncertainty", "certainty", "pushback", "clarification", "information question"),
    "D4 reaction": ("emotion", "accusation", "change of mind"),
}
SHORT_WORDS = 3
REPEATS = 10


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(phrases)})\b")


PER_TURN: Mapping[str, re.Pattern[str]] = {
    "politeness": _any("please", "thanks?", "thank you", "sorry", "appreciate[ds]?", "kindly", "grateful", "pardon"),
    "dashes": re.compile("[–—]"),
    "acknowledgement only": re.compile(
        r"\A(?:yes|yeah|yep|ok|okay|sure|right|fine|great|perfect|correct|got it|go ahead|sounds good|thanks|"
        r"thank you)[\s!.,]*\Z"
    ),
    "uncertainty": _any(
        "maybe", "perhaps", "probably", "possibly", "not sure", "i think", "i guess", "i believe", "don't know",
        "don't remember", "can't remember", "no idea", "might",
    ),
    "certainty": _any("definitely", "absolutely", "certainly", "of course", "for sure", "exactly", "always"),
    "emotion": _any(
        "angry", "annoy(?:ed|ing)", "upset", "frustrat(?:ed|ing)", "worried", "disappoint(?:ed|ing)",
        "confus(?:ed|ing)", "furious", "terrible", "awful", "stress(?:ed|ful)", "ridiculous", "happy", "glad",
    ),
    "accusation": _any(
        "your fault", "wrong", "useless", "unacceptable", "ridiculous", "scam", "lied", "incompetent",
        "mistake", "blame",
    ),
    "change of mind": _any(
        "instead", "actually", "on second thought", "what about", "how about", "rather", "what if", "changed my mind",
    ),
}  # fmt: skip
QUESTIONS: Mapping[str, re.Pattern[str]] = {
    "pushback": _any(
        "are you sure", "already told", "already said", "already gave", "that's wrong", "not right", "not what i",
        "check again", "try again", "why can't", "why not", "doesn't make sense",
    ),
    "clarification": _any(
        "what do you mean", "which one", "what does that", "don't understand", "can you explain", "could you explain",
        "what exactly", "how so", "say that again", "you mean",
    ),
    "information question": _any(
        "how much", "how many", "how long", "when (?:will|does|is|can)", "where (?:is|are|can)",
        "what(?:'s| is) (?:the|my)",
        "can you (?:check|tell|find|show)", "is there", "do you have", "what options",
    ),
}  # fmt: skip
"""A turn counts for the first that it matches."""
AGENT_TALK = _any(
    "how can i help", "how may i help", "i can help you with", "let me check", "let me look", "your order has been",
    "is there anything else i can", "i apologize for", "our policy", "happy to assist",
)  # fmt: skip
IDENTIFIER = re.compile(r"#?\b\w*\d{4,}\w*|\b\w+_\w+_\d+|\S+@\S+\.\w+")
LONGEST_IDENTIFIER = 320
"""Characters of the longest mail address; a longer word is none, and the search takes their square."""


def measure(turns: Sequence[str]) -> dict[str, float]:
    """Features of one conversation from its customer's turns; empty for no turns."""
    texts = [turn.lower().replace("’", "'") for turn in turns if turn.strip()]
    if not texts:
        return {}
    counts = [len(text.split()) for text in texts]
    found = {name: fmean(bool(pattern.search(text.strip())) for text in texts) for name, pattern in PER_TURN.items()}
    kinds = [next((name for name, pattern in QUESTIONS.items() if pattern.search(text)), "") for text in texts]
    found |= {name: kinds.count(name) / len(texts) for name in QUESTIONS}
    trigrams = Counter(t for text in texts for t in zip(*(text.split()[i:] for i in range(3)), strict=False))
    return found | {
        "short": fmean(count <= SHORT_WORDS for count in counts),
        "length variation": pstdev(counts) / fmean(counts),
        "repetition": float(any(count > REPEATS for count in trigrams.values())),
        "agent talk": float(any(AGENT_TALK.search(text) for text in texts)),
        "front-loading": sum(counts[:2]) / sum(counts),
        "identifiers": fmean(sum(map(_identifiers, text.split())) for text in texts),
        "words per turn": fmean(counts),
        "opening words": float(counts[0]),
    }


def _identifiers(word: str) -> int:
    return len(IDENTIFIER.findall(word)) if len(word) <= LONGEST_IDENTIFIER else 0
