"""The key without which an inference server answers nobody. Pure but for randomness.

Whoever may talk to a rollout server may replace its weights. A key travels in environments and in request headers
alone: a command line can be read by every user of the machine, a run folder by whoever gets a copy. Servers that we
start get a fresh one at each start, unless a recipe names a variable; the servers of one Slurm job share the one that
its script draws. Our clients take the key out of whatever a server says.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from common.errors import UsageError

KEY_VARIABLE = "OSIM_ROLLOUT_API_KEY"
"""Carries the key to a server's process (sglang_cpu/launch.py reads it), and to all steps of a Slurm job."""
KEY_BYTES = 32


def new_key() -> str:
    """A random key."""
    return secrets.token_urlsafe(KEY_BYTES)


def named_key(variable: str | None, environment: Mapping[str, str]) -> str | None:
    """The key in a variable that a recipe names. Raises UsageError when it is not there or fits no header."""
    if variable is None:
        return None
    key = environment.get(variable)
    if not key:
        raise UsageError(
            f"environment variable {variable} is not set",
            where="key of the rollout servers",
            fix=f"export {variable}=…",
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"environment variable {variable} holds no key: it has other signs than printable ASCII",
            where="key of the rollout servers",
            fix=f"export {variable} again, without spaces and line ends",
        )
    return key
