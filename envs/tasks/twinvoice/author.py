"""TwinVoice's own answer parsing (TwinVoice/TwinBench @505dd45, discriminative evaluation). Pure.

The authors leave answers without a readable choice out of the mean; `strict` counts them as wrong.
"""

from __future__ import annotations

import re

CHOICE = re.compile(r"""["']?choice["']?\s*[:=]\s*["']?([A-D])""", re.IGNORECASE)


def parse_choice(response: str) -> str | None:
    """The first `choice: X` or `"choice": "X"`, X from A to D; None without one."""
    found = CHOICE.search(response)
    return found.group(1).upper() if found else None
