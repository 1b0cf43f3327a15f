"""Midtraining's loss: cross-entropy over the trained tokens, told apart by data source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megatron_osim.batch import PackedBatch
from megatron_osim.losses import TokenScores
from megatron_osim.train_step import LossSum

LOSS, TOKENS = "source_loss", "source_tokens"


class SourceLoss:
    """A loss function for `train_step`; batches carry values["weight"] and values["source"], an index of `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def __call__(self, scores: TokenScores, batch: PackedBatch) -> LossSum:
        """Sum over the trained tokens of -log p."""
        weight_T = batch.values["weight"]
        loss_T = -scores.logprobs_T * weight_T
        source_T = batch.values["source"].long()
        zero_S = weight_T.new_zeros(len(self.names))
        by_source = {
            LOSS: zero_S.index_add(0, source_T, loss_T.detach()),
            TOKENS: zero_S.index_add(0, source_T, weight_T),
        }
        return LossSum(loss_T.sum(), weight_T.sum(), by_source)

    def means(self, vectors: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Token-mean loss of every source that the step saw, from `StepResult.vectors`."""
        sums = zip(self.names, vectors[LOSS], vectors[TOKENS], strict=True)
        return {name: loss / tokens for name, loss, tokens in sums if tokens}
