"""Words and normalisation. No language model, no download: rules that treat both sides alike."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+", re.UNICODE)
_SPEAKER = re.compile(r"^\s*[\w .'-]{1,30}:\s+", re.UNICODE)


@dataclass(frozen=True)
class Utterance:
    """One turn. `conversation` groups turns that are not independent; `person` is who speaks (or is simulated).

    prompt: what the turn answers; utterances of one prompt are samples of the same situation.
    """

    text: str
    conversation: str
    person: str = ""
    prompt: str = ""
    turn: int = 0


@lru_cache(maxsize=100_000)
def words(text: str) -> tuple[str, ...]:
    """Lower-cased words and numbers; apostrophes inside words are kept, curly ones made straight.

    Cached: resampling reads every turn hundreds of times.
    """
    return tuple(w.replace("’", "'").lower() for w in _WORD.findall(text))


def normalise(text: str) -> str:
    """Without what comes from the recording and not from the speaker: speaker labels, edge space, other than NFC."""
    return _SPEAKER.sub("", unicodedata.normalize("NFC", text)).strip()
