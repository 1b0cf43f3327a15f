"""D4 conditioned on the agent's errors. Pure.

Pooled D4 compares rates of frustration, accusation and change of mind wherever they occur: a simulator that is
annoyed at random scores as well as one that is annoyed at mistakes. Here the rates after an agent's error and after
its other turns are compared with people's separately, and the contrast (after error − otherwise) beside them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UsageError
from eval.user_simulation.features import DIMENSIONS, Turn, reactions
from eval.user_simulation.usi import Conversation, dice

APOLOGY = re.compile(
    r"\b(?:i apologi[sz]e for (?:the|my|that)|my (?:mistake|apologies)|i made (?:a mistake|an error)|"
    r"i was (?:wrong|mistaken)|"
    r"(?:an|the) error (?:occurred|happened)|something went wrong|that (?:was|is) (?:incorrect|not correct)|"
    r"i (?:am|'m) (?:unable|not able) to)\b",
    re.IGNORECASE,
)
TOOL_ERROR = re.compile(r"\A\s*(?:error|exception|traceback|failed)\b", re.IGNORECASE)


def is_agent_error(text: str, tool_results: Sequence[str] = ()) -> bool:
    """Whether an agent's turn shows an error: it admits one, cannot do it, or a tool it called failed."""
    return bool(APOLOGY.search(text)) or any(TOOL_ERROR.search(result) for result in tool_results)


@dataclass(frozen=True)
class Reactions:
    """D4 in per cent, where there was something to react to and where there was not."""

    after_error: float
    otherwise: float
    contrast_model: float
    """Mean rate of the three reactions after errors minus otherwise, in percentage points."""
    contrast_human: float
    turns_after_error: int


def conditioned(model: Sequence[Conversation], human: Sequence[Conversation]) -> Reactions:
    """Compare with people. Raises UsageError when either side has no turn after an error, or no other turn."""
    left, right = _rates(model, "evaluated"), _rates(human, "human")
    scores = [100 * float(np.mean([dice(left[k][f], right[k][f]) for f in DIMENSIONS["D4"]])) for k in (True, False)]
    contrast = [100 * float(np.mean([r[True][f] - r[False][f] for f in DIMENSIONS["D4"]])) for r in (left, right)]
    after = sum(t.after_error for c in model for t in c.turns)
    return Reactions(scores[0], scores[1], contrast[0], contrast[1], after)


def _rates(conversations: Sequence[Conversation], side: str) -> dict[bool, dict[str, float]]:
    out = {}
    for after in (True, False):
        texts = [t.text for c in conversations for t in c.turns if t.after_error is after]
        if not texts:
            kind = "after an agent's error" if after else "without an agent's error before it"
            raise UsageError(f"no {side} turn {kind}", where="tau-USI D4", fix="give more conversations")
        out[after] = dict(reactions(texts))
    return out


def mark_errors(agent_turns: Sequence[str], customer_turns: Sequence[str]) -> tuple[Turn, ...]:
    """Customer turns of an alternating talk that the agent opened: turn k follows agent turn k."""
    return tuple(
        Turn(text, after_error=k < len(agent_turns) and is_agent_error(agent_turns[k]))
        for k, text in enumerate(customer_turns)
    )
