"""Which documents a packing holds when its sources are weighted: shares of tokens. Nothing is tokenized again.

Each source gets a whole number of tokens by its weight. It is filled with whole passes over the source's documents,
then with documents in a seeded order as long as they fit, so that a source falls short by less than one document.
A pure function of lengths, sources, weights and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from common.errors import UsageError
from common.seeds import derive_seed
from data_tools.config import MixtureConfig


def draw_documents(
    lengths: NDArray[np.int32],
    sources: NDArray[np.uint16],
    names: Sequence[str],
    mixture: MixtureConfig,
    seed: int,
) -> NDArray[np.uint32]:
    """Documents to pack, uint32; one that is repeated stands there more than once.

    lengths: tokens, int32[N]; sources: index into `names`, uint16[N]. Raises UsageError for a source without a weight
    or a weight without documents.
    """
    available = np.bincount(sources, lengths, minlength=len(names)).astype(np.int64)
    tokens = {name: int(count) for name, count in zip(names, available, strict=True) if count}
    chosen: list[NDArray[np.int64]] = []
    for name, wanted in _quotas(tokens, mixture).items():
        own = np.flatnonzero(sources == names.index(name))
        passes, rest = divmod(wanted, tokens[name])
        order = np.random.Generator(np.random.PCG64(derive_seed(seed, "mixture", name))).permutation(own)
        fitting = int(np.searchsorted(np.cumsum(lengths[order], dtype=np.int64), rest, side="right"))
        chosen += [*[own] * passes, order[:fitting]]
    return np.concatenate(chosen).astype(np.uint32)


def _quotas(tokens: Mapping[str, int], mixture: MixtureConfig) -> dict[str, int]:
    """Tokens that each source contributes."""
    weights = {name: Fraction(weight) for name, weight in mixture.weights.items()}
    if missing := sorted(set(tokens) - set(weights)):
        raise UsageError(
            f"no weight for {', '.join(missing)}", where="mixture.weights", fix="name every source; 0 leaves one out"
        )
    used = {name: weight for name, weight in weights.items() if weight}
    if absent := sorted(set(used) - set(tokens)):
        raise UsageError(
            f"no document of {', '.join(absent)}",
            where="mixture.weights",
            fix=f"sources with documents: {', '.join(tokens)}",
        )
    if mixture.tokens is None:
        scale = min(tokens[name] / weight for name, weight in used.items())
    else:
        scale = mixture.tokens / sum(used.values(), Fraction())
    return {name: int(scale * weight) for name, weight in used.items()}
