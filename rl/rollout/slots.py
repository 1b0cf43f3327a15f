"""A transformers causal LM with a fixed number of cache slots, computed so that a row never sees its neighbours.

Runs in the embedded engine's thread. The claim: the numbers of a sequence depend only on the weights and its own
tokens, bit for bit. It holds by construction plus one property of the matrix library, which `check_rows` measures:

* prompts are computed in blocks of BLOCK tokens at aligned positions, one sequence at a time: shape [1, BLOCK];
* new tokens are computed for all slots of a run size at once: shape [run size, 1], idle slots padded;
* token t of a sequence lies at index t of its slot, and attention spans `span(t)` entries, the rest masked: all
  shapes are functions of the sequence's own length;
* so a row could only differ by its place among the rows or by the run size. `check_rows` compares both on this
  machine, for this model; run sizes whose bits differ are not used, and if even the place of a row matters, the
  engine decodes one sequence at a time.

Because blocks are pure functions of the tokens up to their end, a cached block is exact, shared by all requests.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64
FIRST_SPAN = 256
RUN_SIZES = (8, 32)
CACHED_BLOCKS = 1024


def span(position: int) -> int:
    """How many cache entries the token at `position` attends over (masked beyond itself): 256, 512, 1024, …"""
    length = FIRST_SPAN
    while length <= position:
        length *= 2
    return length


@dataclass(frozen=True)
class CachedBlock:
    """Keys and values of one block, and the logits after its last token."""

    keys: tuple[Tensor, ...]
    """Per layer (kv heads, BLOCK, head dim)."""
    values: tuple[Tensor, ...]
    last_logits_V: Tensor


class _SlotCache:
    """What transformers' attention calls: stores new keys and values, returns the slots' first `length` entries."""

    def __init__(
        self,
        keys: list[Tensor],
        values: list[Tensor],
        slots: slice,
        length: int,
        *,
        positions: Tensor | slice,
        rows: Tensor | None = None,
    ) -> None:
        """rows: which rows of the batch to store, one token each at `positions`; None: all tokens at that slice."""
        self._keys, self._values, self._slots, self._length = keys, values, slots, length
        self._rows, self._positions = rows, positions

    def update(self, k_BHTD: Tensor, v_BHTD: Tensor, layer_idx: int, *_: object) -> tuple[Tensor, Tensor]:
        keys_BHCD, values_BHCD = self._keys[layer_idx][self._slots], self._values[layer_idx][self._slots]
        if self._rows is None:
            keys_BHCD[:, :, self._positions] = k_BHTD
            values_BHCD[:, :, self._positions] = v_BHTD
        else:
            keys_BHCD[self._rows, :, self._positions] = k_BHTD[self._rows, :, 0]
            values_BHCD[self._rows, :, self._positions] = v_BHTD[self._rows, :, 0]
        return keys_BHCD[:, :, : self._length], values_BHCD[:, :, : self._length]


def grouped_attention(
    module: torch.nn.Module,
    q_BHTD: Tensor,
    k_BKCD: Tensor,
    v_BKCD: Tensor,
    mask: Tensor,
    *,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention for transformers' interface without copying the cache once per query head.

    The G = H / K query heads of a key head are laid side by side as G·T queries. mask is (B or 1, 1, T, C), True =
    attend. Gives (B, T, H, D).
    """
    B, H, T, D = q_BHTD.shape
    K = k_BKCD.shape[1]
    q_BKgD = q_BHTD.reshape(B, K, (H // K) * T, D)
    out_BKgD = F.scaled_dot_product_attention(
        q_BKgD, k_BKCD, v_BKCD, attn_mask=mask.repeat(1, 1, H // K, 1), scale=scaling
    )
    return out_BKgD.reshape(B, H, T, D).transpose(1, 2).contiguous(), None


class SlotModel:
    """The model, its slots (one more than `slots`: the last is scratch for scoring) and the prefix cache."""

    def __init__(self, model: torch.nn.Module, *, max_context: int) -> None:
        config = model.config
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.slots = RUN_SIZES[-1]
        self.max_context = max_context
        length = span(max_context - 1)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (self.slots + 1, heads, length, head_dim)
        dtype = next(model.parameters()).dtype
        self._keys = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(config.num_hidden_layers)]
        self._values = [torch.zeros_like(k) for k in self._keys]
        self._entries = torch.arange(length, device=self.device)
        self._blocks: OrderedDict[bytes, CachedBlock] = OrderedDict()
        self.run_sizes: tuple[int, ...] = RUN_SIZES
        self.rows_independent = True

    def clear_prefixes(self) -> None:
        """Forget every cached block (the weights changed)."""
        self._blocks.clear()

    def clear_slot(self, slot: int) -> None:
        """Wipe a slot that holds numbers that are not finite: masked entries must stay finite."""
        for tensor in (*self._keys, *self._values):
            tensor[slot] = 0

    def prefill(self, slot: int, ids: Sequence[int]) -> tuple[Tensor, int]:
        """Fill `slot` with `ids`. Gives the logits (V,) after the last one, and how many ids came from the cache."""
        digest, cached = b"", 0
        block: CachedBlock | None = None
        for start in range(0, len(ids), BLOCK):
            chunk = ids[start : start + BLOCK]
            digest = _digest(digest, chunk)
            block = self._blocks.get(digest)
            if block is None:
                logits_TV = self._forward_block(slot, start, chunk, last_only=True)
                block = self._remember(digest, slot, start, logits_TV[0])
            else:
                self._blocks.move_to_end(digest)
                self._restore(slot, start, block)
                cached += len(chunk)
        assert block is not None, "prefill of nothing"
        return block.last_logits_V, cached

    def score(self, ids: Sequence[int], first: int) -> list[float]:
        """log p(ids[t] | ids[:t]) at temperature 1 for t in [first, len(ids))."""
        out: list[float] = []
        digest, slot = b"", self.slots
        for start in range(0, len(ids) - 1, BLOCK):
            chunk = ids[start : start + BLOCK]
            digest = _digest(digest, chunk)
            block = self._blocks.get(digest)
            if block is not None and start + len(chunk) < first:
                self._restore(slot, start, block)
                continue
            logits_TV = self._forward_block(slot, start, chunk, last_only=False)
            targets = ids[start + 1 : start + 1 + len(chunk)]
            logp_TV = torch.log_softmax(logits_TV[: len(targets)].double(), dim=-1)
            index_T1 = torch.tensor(targets, device=self.device).unsqueeze(1)
            found = logp_TV.gather(1, index_T1).squeeze(1).tolist()
            out += found[max(0, first - 1 - start) :]
        return out

    def decode(self, tokens: Sequence[int], positions: Sequence[int], active: Sequence[int], run_size: int) -> Tensor:
        """Feed tokens[i] at positions[i] to each active slot i, all of one span. Gives logits (rows, V).

        Row i belongs to slot i (the one active slot when run_size is 1); rows of idle slots are noise.
        """
        first = active[0] if run_size == 1 else 0
        slots = slice(first, first + run_size)
        token_B1 = torch.tensor(tokens[slots], device=self.device).unsqueeze(1)
        position_B1 = torch.tensor(positions[slots], device=self.device).unsqueeze(1)
        length = span(positions[active[0]])
        rows = torch.tensor(active, device=self.device) - first
        mask_B11C = (self._entries[:length] <= position_B1)[:, None, None, :]
        cache = _SlotCache(self._keys, self._values, slots, length, rows=rows, positions=position_B1[rows, 0])
        return self.model.lm_head(self._hidden(token_B1, position_B1, mask_B11C, cache)[:, 0])

    def _forward_block(self, slot: int, start: int, chunk: Sequence[int], *, last_only: bool) -> Tensor:
        """Logits after each token of a block, (BLOCK, V), or after its last token only, (1, V)."""
        device = self.device
        length = span(start + BLOCK - 1)
        padded = [*chunk, *([0] * (BLOCK - len(chunk)))]
        position_T = torch.arange(start, start + BLOCK, device=device)
        slots = slice(slot, slot + 1)
        cache = _SlotCache(self._keys, self._values, slots, length, positions=slice(start, start + BLOCK))
        mask_11TC = (self._entries[:length] <= position_T.unsqueeze(1))[None, None]
        hidden_1TD = self._hidden(torch.tensor([padded], device=device), position_T.unsqueeze(0), mask_11TC, cache)
        hidden_TD = hidden_1TD[0, len(chunk) - 1 : len(chunk)] if last_only else hidden_1TD[0]
        return self.model.lm_head(hidden_TD)

    def _hidden(self, ids: Tensor, positions: Tensor, mask: Tensor, cache: _SlotCache) -> Tensor:
        out = self.model.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        return out.last_hidden_state

    def _remember(self, digest: bytes, slot: int, start: int, last_logits_V: Tensor) -> CachedBlock:
        here = slice(start, start + BLOCK)
        block = CachedBlock(
            tuple(k[slot, :, here].clone() for k in self._keys),
            tuple(v[slot, :, here].clone() for v in self._values),
            last_logits_V,
        )
        self._blocks[digest] = block
        if len(self._blocks) > CACHED_BLOCKS:
            self._blocks.popitem(last=False)
        return block

    def _restore(self, slot: int, start: int, block: CachedBlock) -> None:
        here = slice(start, start + BLOCK)
        for layer, (keys, values) in enumerate(zip(block.keys, block.values, strict=True)):
            self._keys[layer][slot, :, here] = keys
            self._values[layer][slot, :, here] = values

    def check_rows(self) -> None:
        """Measure that a row's bits depend neither on its place nor on the run size; else give up that freedom."""
        ids = [i % self.model.config.vocab_size for i in range(2, BLOCK // 2)]
        reference: Tensor | None = None
        usable: list[int] = []
        for run_size in reversed(RUN_SIZES):
            rows = self._same_row_everywhere(ids, run_size)
            if reference is None:
                reference = rows[0]
                self.rows_independent = all(torch.equal(r, reference) for r in rows)
            if all(torch.equal(r, reference) for r in rows):
                usable.insert(0, run_size)
        self.run_sizes = tuple(usable) if self.rows_independent else (1,)
        self.clear_prefixes()

    def _same_row_everywhere(self, ids: list[int], run_size: int) -> list[Tensor]:
        """The logits of one sequence in every slot, each time beside neighbours with other tokens."""
        rows = []
        for place in range(run_size):
            for slot in {place, (place + 1) % run_size}:
                self.prefill(slot, ids if slot == place else ids[1:])
            tokens = [5 + (slot - place) % 3 if slot != place else 3 for slot in range(run_size)]
            positions = [len(ids)] * run_size
            rows.append(self.decode(tokens, positions, list(range(run_size)), run_size)[place].clone())
        return rows


def _digest(before: bytes, chunk: Sequence[int]) -> bytes:
    return hashlib.blake2b(before + b"".join(i.to_bytes(4, "little") for i in chunk), digest_size=16).digest()
