"""What a survey answer earns under each profile. Pure.

soul (OdysSim's rule, after Kolluri et al., arXiv:2509.05830, 3.2): 1 - |answer - response| / range for ordinal
scales, answers off the scale moved to its end; equality of whole numbers for binary and categorical ones. Always
answering the middle of a 1 to 7 scale earns 0.71 on evenly spread responses.

strict (reward): equality for binary and categorical questions; on ordinal ones an answer earns by how much nearer the
response it is than the middle of the scale is, 1 - |answer - response| / |middle - response| and never below 0. The
middle therefore earns nothing unless the respondent gave it, and neither does an answer that hedges past it. An
answer off the scale is a format error. "yes" and "no" are 1 and 0 of a scale from 0 to 1; other scales (1 and 2, say)
do not tell which end is which, so that there they are no answer. soul reads them as 1 and 0 on every binary scale.
"""

from __future__ import annotations

import math
import re

from envs.registry import Profile
from envs.tasks.single import TAG, only_answer, without_thought
from envs.tasks.socsci210.rows import Response

INTEGER = re.compile(r"-?\d{1,9}")
DECIMAL = re.compile(r"[+-]?\d{1,9}(?:\.\d{1,9})?")
POLARITY = {"yes": 1.0, "no": 0.0}


def read_answer(question: Response, reply: str, profile: Profile) -> float | None:
    """The number that a reply gives, or None."""
    if profile == "soul":
        found = TAG.search(without_thought(reply))
        given = found.group(1).strip() if found else ""
        return _number(given, INTEGER, polarity=question.kind == "binary")
    told = question.kind == "binary" and (question.low, question.high) == (0, 1)
    value = _number(only_answer(reply) or "", DECIMAL, polarity=told)
    return value if value is not None and question.low <= value <= question.high else None


def worth(question: Response, answer: float, profile: Profile) -> float:
    """What an answer earns."""
    if question.kind != "ordinal" and profile == "soul":
        return float(int(answer) == int(question.response))
    if question.kind != "ordinal" or question.high == question.low:
        return float(answer == question.response)
    return accuracy(question, answer) if profile == "soul" else gain_over_middle(question, answer)


def accuracy(question: Response, answer: float) -> float:
    """1 - |answer - response| / range, the answer moved onto the scale."""
    on_scale = max(question.low, min(question.high, answer))
    return 1.0 - abs(on_scale - question.response) / (question.high - question.low)


def gain_over_middle(question: Response, answer: float) -> float:
    """Share of the way from the middle to the response that the answer goes.

    A scale with an even number of steps has two middles; the one nearer the response counts.
    """
    middle = (question.low + question.high) / 2
    nearest = min((math.floor(middle), math.ceil(middle)), key=lambda m: abs(m - question.response))
    error, reference = abs(answer - question.response), abs(nearest - question.response)
    if error == 0:
        return 1.0
    return max(0.0, 1.0 - error / reference) if reference else 0.0


def _number(given: str, form: re.Pattern[str], *, polarity: bool) -> float | None:
    if polarity and given.lower() in POLARITY:
        return POLARITY[given.lower()]
    return float(given) if form.fullmatch(given) else None
