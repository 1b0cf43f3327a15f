"""One step's numbers for metrics.jsonl. Pure; every key but `seconds/…`, `utilisation/…` and `rollout/…` is the same
after a resume.

A mean over rollouts always has its n and its coverage (scored share) beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from envs.detectors.base import DETECTORS
from envs.detectors.rates import rates, summary
from envs.types import Episode, Score
from rl.actor.actor import Update
from rl.collect import Collected, TaskEpisodes
from rl.gates import LogprobGap, measure_gap
from rl.samples import TrainSample
from rl.weight_sync.sync import SyncReport

Metrics = dict[str, float | int]


class Clock:
    """Where a step's time went."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    def since_start(self) -> float:
        return time.monotonic() - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's duration to `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start


@dataclass(frozen=True)
class Rank0:
    """What the rollout side did in a step beside the episodes themselves."""

    play_s: float
    """From the first to the last moment of playing this step's episodes; ahead of time where that is configured."""
    sync: SyncReport | None
    replacements: int = 0
    """Engines replaced so far."""
    prefix_cache_hit_rate: float = 0.0
    """Share of prompt tokens, since the last step's line, that the engines did not compute again."""


def step_metrics(
    collected: Collected, batch: Sequence[TrainSample], gap: LogprobGap, update: Update, clock: Clock, rank0: Rank0
) -> Metrics:
    """Flat, `group/name`. `batch`: the prepared samples; `gap`: engine against trainer under the same weights."""
    out: Metrics = {}
    for one in collected.episodes:
        prefix = "" if len(collected.episodes) == 1 else f"{one.task.config.task}/"
        out |= _task(one, prefix) | _cost(one, collected.experience.samples, prefix)
    out |= _hacks(collected.episodes)
    if len(collected.episodes) > 1:
        out |= _rewards([e for t in collected.episodes for e in t.drafts], "reward")
    out |= {f"groups/{name}": value for name, value in asdict(collected.counts).items()}
    out |= {f"gap/{name}": value for name, value in gap.metrics().items()}
    out |= {f"train/{name}": value for name, value in update.means.items()}
    out |= {
        "train/loss": update.loss,
        "train/grad_norm": update.grad_norm,
        "train/lr": update.lr,
        "train/optimizer_steps": update.optimizer_steps,
        "train/samples": len(collected.experience.samples),
        "train/tokens": update.trained_tokens,
        "train/useful_share": useful_share(collected.experience.samples, collected.episodes),
    }
    out |= collected.watched
    ages = [collected.experience.step - s.version for s in collected.experience.samples]
    out |= {"staleness/mean": _mean(ages), "staleness/max": max(ages, default=0)}
    if any(ages):
        out |= {f"off_policy/{name}": value for name, value in measure_gap(batch).metrics().items()}
    return out | _operation(collected, clock, rank0)


def _operation(collected: Collected, clock: Clock, rank0: Rank0) -> Metrics:
    """Times and shares that no two runs have alike."""
    out: Metrics = {f"seconds/{name}": value for name, value in clock.seconds.items()}
    whole = out["seconds/step"] = clock.since_start()
    out["seconds/play"] = rank0.play_s
    training = clock.seconds.get("train", 0.0) + clock.seconds.get("logprobs", 0.0)
    waiting = clock.seconds.get("generate", 0.0) + clock.seconds.get("settle", 0.0)
    out["utilisation/training"] = training / whole
    out["utilisation/generation"] = min(1.0, rank0.play_s / whole)
    out["utilisation/overhead"] = 1.0 - (training + waiting) / whole
    episodes = [e for t in collected.episodes for e in (*t.drafts, *t.refinements)]
    traces = [t for e in episodes for t in e.traces.values()]
    out["rollout/tokens_per_s"] = sum(t.sampled for t in traces) / rank0.play_s if rank0.play_s else 0.0
    out["rollout/engine_replacements"] = rank0.replacements
    out["rollout/prefix_cache_hit_rate"] = rank0.prefix_cache_hit_rate
    if rank0.sync is not None:
        out["rollout/sync_push_s"], out["rollout/sync_verify_s"] = rank0.sync.push_s, rank0.sync.verify_s
        out["rollout/sync_mb"] = rank0.sync.nbytes / 1e6
    return out


def useful_share(samples: Sequence[TrainSample], tasks: Sequence[TaskEpisodes]) -> float:
    """Sampled tokens of learnable seats that a loss component weighs, over all of them."""
    useful = {s.episode_id + s.seat: s.trained_tokens for s in samples if has_weight(s)}
    sampled = sum(_sampled(e) for t in tasks for e in (*t.drafts, *t.refinements))
    return sum(useful.values()) / sampled if sampled else 0.0


def _cost(one: TaskEpisodes, samples: Sequence[TrainSample], prefix: str) -> Metrics:
    """What a task's API calls cost in this step, and how much of what it sampled changed the gradient."""
    calls = [c for e in (*one.drafts, *one.refinements) for c in e.judge_calls]
    own = [s for s in samples if s.prompt_id.startswith(f"{one.task.spec.name}/")]
    return {
        f"{prefix}cost/usd": math.fsum(c.cost_usd for c in calls),
        f"{prefix}cost/calls": len(calls),
        f"{prefix}cost/failed_calls": sum(c.error is not None for c in calls),
        f"{prefix}cost/cached_calls": sum(c.cached for c in calls),
        f"{prefix}useful_share": useful_share(own, [one]),
    }


def has_weight(sample: TrainSample) -> bool:
    """Whether any loss component weighs this sample."""
    return any(
        w is not None and w.any()
        for w in (sample.advantage, sample.cross_entropy, sample.reverse_kl, sample.top_k_kl)
    )


def _task(one: TaskEpisodes, prefix: str) -> Metrics:
    out = _rewards(one.drafts, prefix + "reward", one.task.seats)
    if one.refinements:
        out |= _rewards(one.refinements, prefix + "refined_reward", one.task.seats)
    lengths = [e.traces[seat].sampled for e in one.drafts for seat in one.task.seats if seat in e.traces]
    out[prefix + "length/mean"] = _mean(lengths)
    out[prefix + "length/max"] = max(lengths, default=0)
    out[prefix + "turns/mean"] = _mean([e.turns for e in one.drafts])
    return out


def _rewards(episodes: Sequence[Episode], name: str, seats: Sequence[str] | None = None) -> Metrics:
    outcomes = [o for e in episodes for seat, o in e.outcomes.items() if seats is None or seat in seats]
    scores = [o for o in outcomes if isinstance(o, Score)]
    return {
        f"{name}/mean": _mean([s.value for s in scores]),
        f"{name}/n": len(scores),
        f"{name}/coverage": len(scores) / len(outcomes) if outcomes else 0.0,
        f"{name}/format_error_share": _mean([float(s.format_error) for s in scores]),
    }


def _hacks(episodes: Sequence[TaskEpisodes]) -> Metrics:
    """Share of turns with a finding, per detector; how many drafts each was found in is in the ledger."""
    drafts = [e for t in episodes for e in t.drafts]
    turns = sum(say.seat in t.task.seats for t in episodes for e in t.drafts for say in e.says)
    return dict(summary(rates([e.findings for e in drafts], turns, DETECTORS)))


def _sampled(episode: Episode) -> int:
    return sum(t.sampled for t in episode.traces.values() if t.learnable)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
