"""Losses and their gradients against an independent float64 reference."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from megatron_osim.losses import TokenScores  # noqa: E402
from rl.config import LossConfig  # noqa: E402
from rl.losses import loss_fn, pack, sequence_scales  # noqa: E402
from rl.samples import Surrogate, TrainSample  # noqa: E402

SURROGATES = [
    Surrogate(),
    Surrogate(dual_clip=None),
    Surrogate(dual_clip=1.5),
    Surrogate(sequence_ratio=True, clip_low=0.05, clip_high=0.05),
    Surrogate(detached=True, clip_low=1.0),
]


def make(rng: np.random.Generator, surrogate: Surrogate, n: int) -> TrainSample:
    trainable = rng.random(n) > 0.4
    trainable[0], trainable[-1] = False, True

    def noise(scale: float) -> np.ndarray:
        return np.where(trainable, rng.normal(size=n) * scale, 0).astype(np.float32)

    old = np.where(trainable, -rng.random(n) * 4 - 0.5, 0).astype(np.float32)
    return TrainSample(
        ids=rng.integers(0, 50, n).astype(np.int32),
        trainable=trainable,
        episode_id="e",
        prompt_id="p",
        seat="s",
        version=0,
        rollout_logprobs=(old + noise(0.5)) if rng.random() < 0.5 else None,
        advantage=noise(1.0) if rng.random() < 0.8 else None,
        cross_entropy=abs(noise(1.0)) if rng.random() < 0.5 else None,
        reverse_kl=abs(noise(1.0)) if rng.random() < 0.5 else None,
        teacher_logprobs=old + noise(3.0),
        old_logprobs=old,
        surrogate=surrogate,
    )


def reference(s: TrainSample, new: np.ndarray, scale: float, config: LossConfig) -> tuple[float, np.ndarray]:
    """Loss of one sequence and its gradient by the log-probs, token by token, in float64."""
    zero = np.zeros(len(s.ids))
    old, teacher = s.old_logprobs.astype(np.float64), s.teacher_logprobs.astype(np.float64)
    advantage = zero if s.advantage is None else s.advantage.astype(np.float64)
    if s.reverse_kl is not None:
        advantage = advantage + s.reverse_kl * np.clip(teacher - old, -config.kl_clip, config.kl_clip)
    where = np.flatnonzero(s.trainable)
    u = s.surrogate
    low, high = 1 - u.clip_low, 1 + u.clip_high
    sequence_log_ratio = float(np.mean([new[t] - old[t] for t in where]))
    total, gradient = 0.0, zero.copy()
    for t in where:
        log_ratio = sequence_log_ratio if u.sequence_ratio else new[t] - old[t]
        ratio = math.exp(log_ratio)
        A = advantage[t]
        w = 1.0
        if s.rollout_logprobs is not None and config.tis_cap is not None:
            w = min(math.exp(old[t] - float(s.rollout_logprobs[t])), config.tis_cap)
        if u.detached:
            bounded = min(max(ratio, low), high)
            policy, slope = -bounded * A * new[t], None
            gradient[t] += scale * w * -bounded * A
        else:
            plain, clipped = ratio * A, min(max(ratio, low), high) * A
            policy, slope = -min(plain, clipped), (-A * ratio if plain <= clipped else 0.0)
            if A < 0 and u.dual_clip is not None and policy > -u.dual_clip * A:
                policy, slope = -u.dual_clip * A, 0.0
            if u.sequence_ratio:
                gradient[where] += scale * w * slope / len(where)
            else:
                gradient[t] += scale * w * slope
        ce = 0.0 if s.cross_entropy is None else float(s.cross_entropy[t])
        total += scale * (w * policy - ce * new[t])
        gradient[t] += scale * -ce
    return total, gradient


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    surrogate=st.sampled_from(SURROGATES),
    aggregation=st.sampled_from(["token_mean", "sequence_mean", "constant"]),
    cap=st.sampled_from([None, 2.0]),
)
def test_loss_and_gradient_equal_a_float64_reference(seed, surrogate, aggregation, cap) -> None:
    rng = np.random.default_rng(seed)
    config = LossConfig(aggregation=aggregation, tis_cap=cap, constant_length=16)
    samples = [make(rng, surrogate, int(rng.integers(3, 9))) for _ in range(3)]
    scales = sequence_scales([s.trained_tokens for s in samples], config)
    new = [
        np.where(s.trainable, s.old_logprobs + rng.normal(size=len(s.ids)) * 0.4, 0).astype(np.float32)
        for s in samples
    ]
    batch = pack(samples, scales)
    # Log-probs live at the position that predicts their token.
    at_predictor = torch.tensor(np.concatenate([np.append(v[1:], v[:1]) for v in new]), requires_grad=True)
    result = loss_fn(config)(TokenScores(at_predictor, torch.ones_like(at_predictor)), batch)
    result.total.backward()
    expected = [reference(s, v.astype(np.float64), k, config) for s, v, k in zip(samples, new, scales, strict=True)]
    assert result.total.item() == pytest.approx(sum(e[0] for e in expected), rel=2e-4, abs=2e-4)
    gradient = np.concatenate([np.append(e[1][1:], 0) for e in expected])
    np.testing.assert_allclose(at_predictor.grad.numpy(), gradient, rtol=2e-4, atol=2e-5)
    assert float(result.count) == sum(s.trained_tokens for s in samples)


@given(tokens=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_aggregations_are_means_over_the_global_batch(tokens: list[int]) -> None:
    total, n = sum(tokens), len(tokens)  # with a loss of 1 on every token
    for how, expected in (("token_mean", 1.0), ("sequence_mean", 1.0), ("constant", total / (n * 7))):
        scales = sequence_scales(tokens, LossConfig(aggregation=how, constant_length=7))
        assert sum(s * t * 1.0 for s, t in zip(scales, tokens, strict=True)) / total == pytest.approx(expected)


def test_sequence_mean_weighs_a_long_and_a_short_answer_alike() -> None:
    short, long = sequence_scales([2, 98], LossConfig(aggregation="sequence_mean"))
    assert short * 2 == pytest.approx(long * 98)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_on_policy_the_gradient_is_the_plain_policy_gradient(surrogate: Surrogate) -> None:
    rng = np.random.default_rng(0)
    s = replace(make(rng, surrogate, 8), advantage=None, cross_entropy=None, reverse_kl=None, rollout_logprobs=None)
    s = replace(s, advantage=s.spread(-0.7))
    batch = pack([s], [1.0])
    new = torch.tensor(np.append(s.old_logprobs[1:], s.old_logprobs[:1]), requires_grad=True)
    loss_fn(LossConfig())(TokenScores(new, torch.ones_like(new)), batch).total.backward()
    expected = np.append(np.where(s.trainable, 0.7, 0)[1:], 0)
    np.testing.assert_allclose(new.grad.numpy(), expected, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_top_k_kl_and_its_gradient_equal_a_float64_reference(seed: int, k: int) -> None:
    """Over logits: the gradient flows through the candidates' log-probs and, by them, the rest's."""
    rng = np.random.default_rng(seed)
    vocab, n = 6, 5
    logits, teacher_logits = rng.normal(size=(n, vocab)), rng.normal(size=(n, vocab))
    teacher = teacher_logits - np.log(np.exp(teacher_logits).sum(1, keepdims=True))
    s = replace(make(rng, Surrogate(), n), advantage=None, cross_entropy=None, reverse_kl=None, rollout_logprobs=None)
    chosen = np.stack([rng.permutation(vocab)[:k] for _ in range(n)]).astype(np.int32)
    s = replace(
        s,
        top_k_kl=s.spread(0.7),
        top_k=k,
        top_k_ids=chosen,
        top_k_teacher=np.take_along_axis(teacher, chosen, 1).astype(np.float32),
    )
    other = replace(make(rng, Surrogate(), 4), reverse_kl=None)  # of another algorithm: it has no candidates
    batch = pack([s, other], [1.0, 1.0])
    assert batch.labels_T.shape == (n + 4, 1 + k)
    assert batch.labels_T[: n - 1, 1:].tolist() == chosen[1:].tolist()

    def kl(z: np.ndarray, t: int) -> float:
        p = np.exp(z) / np.exp(z).sum()
        p, q = p[chosen[t]], np.exp(teacher[t][chosen[t]])
        rest = 0.0 if k == vocab else (1 - p.sum()) * math.log((1 - p.sum()) / (1 - q.sum()))
        return float((p * np.log(p / q)).sum()) + rest

    of_token = torch.tensor(logits, dtype=torch.float32, requires_grad=True)  # row t predicts token t
    logp = torch.log_softmax(of_token, -1)
    own = torch.zeros(n + 4, 1)
    candidates = torch.cat([logp.gather(1, torch.tensor(chosen, dtype=torch.int64))[1:], torch.zeros(5, k) - 1.0])
    scores = TokenScores(torch.cat([own - 1.0, candidates], 1), torch.ones(n + 4))
    both = loss_fn(LossConfig())(scores, batch)
    alone = loss_fn(LossConfig())(TokenScores(torch.full((4,), -1.0), torch.ones(4)), pack([other], [1.0]))
    (both.total - alone.total).backward()
    where = np.flatnonzero(s.trainable)
    expected = 0.7 * sum(kl(logits[t], t) for t in where)
    assert (both.total - alone.total).item() == pytest.approx(expected, rel=2e-4, abs=2e-5)
    for t in where:
        for v in range(vocab):
            step = np.zeros(vocab)
            step[v] = 1e-5
            slope = 0.7 * (kl(logits[t] + step, t) - kl(logits[t] - step, t)) / 2e-5
            assert of_token.grad[t, v].item() == pytest.approx(slope, rel=1e-3, abs=2e-4)


def test_with_the_whole_vocabulary_top_k_kl_is_the_kl_and_with_less_it_is_a_lower_bound() -> None:
    rng = np.random.default_rng(1)
    n, vocab = 4, 8
    s = replace(make(rng, Surrogate(), n), advantage=None, cross_entropy=None, reverse_kl=None, rollout_logprobs=None)
    student, teacher = (torch.log_softmax(torch.tensor(rng.normal(size=(n, vocab))), -1).float() for _ in range(2))
    full = float((student.exp() * (student - teacher)).sum(1)[torch.tensor(s.trainable)].sum())
    found = []
    for k in (2, 4, vocab):
        ids = student.topk(k, 1).indices
        graded = teacher.gather(1, ids).numpy()
        one = replace(
            s, top_k_kl=s.spread(1.0), top_k=k, top_k_ids=ids.numpy().astype(np.int32), top_k_teacher=graded
        )
        rows = torch.cat([torch.full((n, 1), -1.0), student.gather(1, ids).roll(-1, 0)], 1)
        found.append(loss_fn(LossConfig())(TokenScores(rows, torch.ones(n)), pack([one], [1.0])).total.item())
    assert found[0] <= found[1] <= found[2] == pytest.approx(full, rel=1e-4)


def test_a_sample_without_its_log_probs_is_refused() -> None:
    s = replace(make(np.random.default_rng(0), Surrogate(), 5), old_logprobs=None)
    with pytest.raises(ValueError, match="missing"):
        pack([s], [1.0])
