"""Everything a run watches, once per step on rank 0, after its episodes are played and before they are weighed.

Gives metrics; raises GateError (exit 3) for alarms that are configured to stop. A stop comes before the suspicious
step is trained; what was trained before is saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.errors import UsageError
from envs.detectors.base import DETECTORS
from envs.detectors.rates import rates
from envs.judges.base import Judge
from envs.ledger import Ledger
from envs.registry import TaskSpec
from envs.types import Episode, Seat
from rl.watch.alarm import Alarm, detector_alarms, raise_stops
from rl.watch.config import WatchConfig
from rl.watch.judges import Anchors, Rejudge, SecondJudge
from rl.watch.likeness import distances, read_turns, turns_of

Metrics = dict[str, float | int]


class Watch:
    """`judge` scores rewards, `second` gives second opinions; both None where the run asks none."""

    def __init__(
        self,
        config: WatchConfig,
        tasks: Mapping[str, TaskSpec],
        ledger: Ledger,
        *,
        judge: Judge | None,
        second: Judge | None,
        seed: int,
    ) -> None:
        self.config = config
        self._anchors: Anchors | None = None
        self._second: SecondJudge | None = None
        if config.anchors is not None:
            self._anchors = Anchors(config.anchors, Rejudge(tasks, _needed(judge, "watch.anchors"), ledger))
        if config.second_judge is not None:
            rejudge = Rejudge(tasks, _needed(second, "watch.second_judge"), ledger)
            self._second = SecondJudge(config.second_judge, rejudge, seed)
        reference = config.human_reference
        self._people = read_turns(reference.turns) if reference is not None else []

    async def observe(self, step: int, played: Sequence[tuple[Episode, Sequence[Seat]]]) -> Metrics:
        """played: this step's drafts, each with its learnable seats."""
        episodes = [episode for episode, _ in played]
        turns = sum(say.seat in seats for episode, seats in played for say in episode.says)
        found = rates([e.findings for e in episodes], turns, DETECTORS)
        alarms: list[Alarm] = detector_alarms({name: rate.value for name, rate in found.items()}, self.config.stop_on)
        metrics: Metrics = {}
        if self._anchors is not None:
            more, raised = await self._anchors.observe(step)
            metrics, alarms = metrics | more, alarms + raised
        if self._second is not None:
            more, raised = await self._second.observe(step, episodes)
            metrics, alarms = metrics | more, alarms + raised
        if self.config.human_reference is not None and step % self.config.human_reference.every_steps == 0:
            metrics |= distances(turns_of(played), self._people)
        if alarms:
            metrics["watch/alarms"] = len(alarms)
        raise_stops(alarms, where=f"step {step}")
        return metrics


def _needed(judge: Judge | None, where: str) -> Judge:
    if judge is None:
        raise UsageError("there is no judge to watch", where=where, fix="configure `client` with a judge")
    return judge
