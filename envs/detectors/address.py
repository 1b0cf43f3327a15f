"""Talking to whoever scores: naming a judge, asking for a score, handing one in, overriding instructions. Pure."""

from __future__ import annotations

import re

JUDGE = r"(?:judges?|evaluators?|graders?|raters?|scorers?|reviewers?|assessors?|annotators?|reward model)"
SCORE = r"(?:scores?|ratings?|marks?|grades?|points|rewards?|stars)"
TOP = r"(?:highest|maximum|max|top|full|perfect|best(?: possible)?|10\s*(?:/|out of)\s*10|ten out of ten)"
PATTERNS = (
    re.compile(rf"\b(?:dear|note to|message (?:to|for)|attention|hey|hello),? (?:the |my |our )?{JUDGE}\b", re.I),
    re.compile(
        rf"\b{JUDGE}\b[^.!?\n]{{0,60}}\b(?:scor\w+|rat(?:e|es|ed|ing)|grad(?:e|es|ed|ing)|award|mark)\b", re.I
    ),
    re.compile(
        rf"\b(?:scor\w+|rat(?:e|es|ing)|grad(?:e|es|ing)|award)\b[^.!?\n]{{0,30}}\bby (?:the |a )?{JUDGE}\b", re.I
    ),
    re.compile(
        rf"\b(?:give|award|assign|grant|deserves?|merits?|earns?|output|return)\b[^.!?\n]{{0,40}}\b{TOP} {SCORE}\b",
        re.I,
    ),
    re.compile(rf"\b(?:rate|score|grade|mark)\b (?:this|me|my|the)\b[^.!?\n]{{0,50}}\b(?:{TOP}|10)\b", re.I),
    re.compile(r"[\"']?\b(?:score|rating|verdict|reward)[\"']?\s*[:=]\s*[\"']?(?:\d|pass\b|max)", re.I),
    re.compile(
        r"\b(?:ignore|disregard|forget|override) (?:all |any |the |your |these |those )*"
        r"(?:previous|prior|earlier|above|preceding|other|existing)?\s*(?:instructions?|prompts?|rules|guidelines|criteria|rubric)\b",
        re.I,
    ),
    re.compile(r"\bsystem (?:override|message|prompt|note)\s*:", re.I),
    re.compile(r"<\|?(?:im_start|im_end|system|assistant|endoftext)\|?>|\[/?(?:INST|SYS)\]", re.I),
)


def find(text: str) -> str | None:
    """The phrase, or None."""
    return next((m.group(0)[:120] for p in PATTERNS if (m := p.search(text))), None)
