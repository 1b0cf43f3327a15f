"""Stateless seeds: any random draw can be repeated from its coordinates alone; there is no global RNG.

seed = blake2b(run_seed, *coordinates), e.g. (run_seed, step, prompt_id, sample, seat, turn) (DESIGN 5).
"""

from __future__ import annotations

import hashlib
import random


def derive_seed(run_seed: int, *coordinates: int | str) -> int:
    """A 63-bit seed that depends on every coordinate and its position."""
    text = "\x1f".join([str(run_seed), *[f"{type(c).__name__}:{c}" for c in coordinates]])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def derive_rng(run_seed: int, *coordinates: int | str) -> random.Random:
    """A private generator seeded by `derive_seed`."""
    return random.Random(derive_seed(run_seed, *coordinates))
