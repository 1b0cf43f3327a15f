"""From logits to tokens: temperature, top-k, top-p and one uniform number per token, row by row.

Pure functions. Each row's result depends on that row alone. The draw is an inverse CDF in float64, so a token is a
function of (logits, sampling, uniform); the uniform is counter-based: token t of a request always uses
`uniform(seed, t)`, whenever and beside whatever it is drawn. Log-probs follow SGLang: at the sampling temperature,
over the full vocabulary (not renormalised to what top-k and top-p keep); greedy is reported at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.seeds import derive_seed
from envs.engine import Sampling

UNIFORM_BITS = 48


def uniform(seed: int, token_index: int) -> float:
    """The number in [0, 1) that draws token `token_index` of the request with this seed."""
    return (derive_seed(seed, "token", token_index) >> (63 - UNIFORM_BITS)) / (1 << UNIFORM_BITS)


def log_probs(logits_BV: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Log-probabilities (float64) at each row's sampling temperature."""
    temperatures = [s.temperature or 1.0 for s in samplings]
    scale_B1 = torch.tensor(temperatures, dtype=torch.float64, device=logits_BV.device).unsqueeze(1)
    return torch.log_softmax(logits_BV.double() / scale_B1, dim=-1)


def draw(logp_BV: Tensor, samplings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """One token id per row, (B,) int64."""
    greedy_B = logp_BV.argmax(dim=-1)
    if all(s.temperature == 0 for s in samplings):
        return greedy_B
    p_BV = logp_BV.exp()
    for row, sampling in enumerate(samplings):
        if sampling.top_k > 0 or sampling.top_p < 1:
            p_BV[row] = _truncate(p_BV[row], sampling)
    cdf_BV = p_BV.cumsum(dim=-1)
    target_B1 = torch.tensor(uniforms, dtype=torch.float64, device=cdf_BV.device).unsqueeze(1) * cdf_BV[:, -1:]
    drawn_B = torch.searchsorted(cdf_BV, target_B1, right=True).squeeze(1)
    is_greedy_B = torch.tensor([s.temperature == 0 for s in samplings], device=drawn_B.device)
    return torch.where(is_greedy_B, greedy_B, drawn_B)


def _truncate(p_V: Tensor, sampling: Sampling) -> Tensor:
    """Zero what top-k and then top-p leave out: the smallest set of most likely tokens whose mass reaches top_p."""
    sorted_V, order_V = p_V.sort(descending=True, stable=True)
    if sampling.top_k > 0:
        sorted_V[sampling.top_k :] = 0
    before_V = sorted_V.cumsum(0) - sorted_V
    sorted_V[before_V > sampling.top_p * sorted_V.sum()] = 0
    return torch.zeros_like(p_V).scatter_(0, order_V, sorted_V)
