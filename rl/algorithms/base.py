"""What every algorithm shares: its contract, groups, and order-invariant group statistics.

Invariants (tests/rl/algorithms): statistics do not depend on the order of rollouts, bit for bit (`math.fsum` is
exactly rounded); an unscored rollout leaves its group and changes no other's weight; a singleton or zero-variance
group gives no gradient and is counted; every scored member of a group that trains is a sample, so that the token mean
counts the average ones too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, TypeVar

import numpy as np

from envs.types import Seat
from rl.samples import Attempt, Floats, Rollout, TrainSample

STD_EPSILON = 1e-6
Needs = Literal["draft", "feedback", "privileged"]
State = dict[str, float]


@dataclass(frozen=True)
class GroupCounts:
    """What became of one step's groups; a group is (prompt, seat). Added over tasks."""

    groups: int = 0
    trained: int = 0
    singleton: int = 0
    """Fewer than two scored rollouts."""
    zero_variance: int = 0
    no_teacher: int = 0
    """Scored rollouts for which the task gave no feedback or privileged context, where the algorithm wants one."""

    def __add__(self, other: GroupCounts) -> GroupCounts:
        return GroupCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Weighed:
    """The samples of one step, weighted; those without any gradient are left out."""

    samples: tuple[TrainSample, ...] = ()
    counts: GroupCounts = field(default_factory=GroupCounts)


class Algorithm(Protocol):
    """One module of this package. Pure but for `state`, which is checkpointed (JSON) for exact resume."""

    needs: Needs
    """Beside each draft: nothing, a second play under feedback, or a privileged teacher context."""
    state: State

    def weigh(self, attempts: Sequence[Attempt]) -> Weighed:
        """Weighted samples of all attempts of one step, in an order that does not depend on theirs."""
        ...


T = TypeVar("T")


def group(items: Sequence[T], rollout: Callable[[T], Rollout]) -> list[tuple[tuple[str, Seat], list[T]]]:
    """Items by (prompt, seat) in canonical order: groups by key, members by episode id."""
    groups: dict[tuple[str, Seat], list[T]] = {}
    for item in sorted(items, key=lambda i: (rollout(i).episode_id, rollout(i).seat)):
        of = rollout(item)
        groups.setdefault((of.prompt_id, of.seat), []).append(item)
    return sorted(groups.items(), key=lambda pair: pair[0])


def scored(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Attempts whose draft has a real score."""
    return [a for a in attempts if a.draft.scored]


def mean(values: Sequence[float]) -> float:
    """Exactly rounded sum over n: independent of order."""
    return math.fsum(values) / len(values)


def std(values: Sequence[float]) -> float:
    """Unbiased (n - 1) standard deviation, as in the GRPO of odyssim.md 4.2; 0 below two values."""
    if len(values) < 2:
        return 0.0
    center = mean(values)
    return math.sqrt(math.fsum((v - center) ** 2 for v in values) / (len(values) - 1))


def has_variance(values: Sequence[float]) -> bool:
    """At least two values, not all equal."""
    return len(values) > 1 and min(values) != max(values)


def group_advantages(
    rewards: Sequence[float], *, scale_by_std: bool = True, leave_one_out: bool = False
) -> list[float]:
    """A_i = (r_i - baseline) [/ (std + eps)] with the group's mean or the mean of the others as baseline.

    GRPO: arXiv:2402.03300 eq. 3; without the division: Dr. GRPO, arXiv:2503.20783; leave-one-out: RLOO,
    arXiv:2402.14740. All zeros when the group has no variance.
    """
    if not has_variance(rewards):
        return [0.0] * len(rewards)
    total, n = math.fsum(rewards), len(rewards)
    scale = 1.0 / (std(rewards) + STD_EPSILON) if scale_by_std else 1.0
    if leave_one_out:
        return [(r - (total - r) / (n - 1)) * scale for r in rewards]
    return [(r - total / n) * scale for r in rewards]


def tally(rewards: Sequence[float], *, no_teacher: int = 0, trained: bool = False) -> GroupCounts:
    """The counts of one group with these scored rewards. trained: it trains whatever its rewards say."""
    alive = has_variance(rewards) or trained
    return GroupCounts(
        groups=1,
        trained=int(alive),
        singleton=int(len(rewards) < 2 and not trained),
        zero_variance=int(len(rewards) > 1 and not alive),
        no_teacher=no_teacher,
    )


def turn_advantages(members: Sequence[Rollout], *, scale_by_std: bool = True) -> list[Floats]:
    """Per member [T]: how its reward of the turn that sampled a token compares with the group's of the same turn.

    The turn-level term of MT-GRPO (arXiv:2505.11821): normalised like episode rewards, turn by turn, among the
    members that have this turn and a reward for it; 0 where fewer than two have, or all are alike.
    """
    found = [np.zeros(len(m.ids), np.float32) for m in members]
    for turn in range(max((len(m.turn_rewards) for m in members), default=0)):
        having = [i for i, m in enumerate(members) if len(m.turn_rewards) > turn and m.turns is not None]
        rewards = [members[i].turn_rewards[turn] for i in having]
        for i, advantage in zip(having, group_advantages(rewards, scale_by_std=scale_by_std), strict=True):
            found[i][members[i].turns == turn] = advantage
    return found
