"""The authors' number of a dimension (Neph0s/CoSER @624efc5, gca_evaluation/main.py). Pure.

100 - 5 (sum of severities - 0.3 messages), within 0 to 100. It pays 1.5 points for every message that is not the
environment's, and a severity that is no whole number (a text, a float) costs nothing: strict does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

POINTS_PER_SEVERITY = 5
TOLERATED_PER_MESSAGE = 0.3


def dimension_score(severities: Sequence[Any], messages: int) -> float:
    """Score of one dimension, 0 to 100."""
    total = sum(s for s in severities if isinstance(s, int))
    return max(0.0, min(100 - (total - TOLERATED_PER_MESSAGE * messages) * POINTS_PER_SEVERITY, 100.0))
