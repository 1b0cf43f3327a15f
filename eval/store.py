"""Evaluation episodes in a run folder's ledger, and back.

A ledger keeps exactly one episode per key. An evaluation episode is (phase "eval/GROUP", prompt "TASK/ROW@CONTENT",
sample = epoch); one that had no score and was played again is a further sample, ATTEMPT_STRIDE apart, and the last
one counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from envs.ledger import EpisodeKey, Ledger, LedgerReader
from envs.types import Episode
from eval.plan import EvalPlan, PlannedEpisode, episode_key

PHASE = "eval"
ATTEMPT_STRIDE = 1_000_000


def ledger_key(planned: PlannedEpisode, attempt: int) -> EpisodeKey:
    """Where an episode lies in the ledger."""
    return EpisodeKey(
        phase=f"{PHASE}/{planned.group}",
        step=0,
        prompt_id=f"{planned.row.prompt_id}@{planned.content}",
        sample=planned.epoch + attempt * ATTEMPT_STRIDE,
    )


def plan_key(key: EpisodeKey) -> str | None:
    """The plan's key (permalink) of a ledger key; None when it is not an evaluation episode."""
    kind, _, group = key.phase.partition("/")
    content = key.prompt_id.rpartition("@")[2]
    return episode_key(group, content, key.sample % ATTEMPT_STRIDE) if kind == PHASE and group else None


def load_episodes(ledger: LedgerReader, plan: EvalPlan) -> dict[str, Episode]:
    """The newest play of each planned episode that the ledger has, by the plan's key."""
    found, _ = _load(ledger, plan)
    return found


def _load(ledger: LedgerReader, plan: EvalPlan) -> tuple[dict[str, Episode], Counter[str]]:
    wanted = {ledger_key(e, 0): e.key for e in plan.episodes}
    found: dict[str, Episode] = {}
    attempts: Counter[str] = Counter()
    for phase in sorted({key.phase for key in wanted}):
        for recorded in ledger.episodes(phase=phase):
            at = recorded.key
            attempt, epoch = divmod(at.sample, ATTEMPT_STRIDE)
            key = wanted.get(EpisodeKey(at.phase, at.step, at.prompt_id, epoch))
            if key is None:
                continue
            if attempt + 1 > attempts[key]:
                attempts[key], found[key] = attempt + 1, recorded.episode
    return found, attempts


def episodes_by_key(ledger: LedgerReader, groups: Iterable[str]) -> dict[str, Episode]:
    """The newest play of every episode of these groups (`Results.groups`), by the plan's key."""
    found: dict[str, tuple[int, Episode]] = {}
    for group in groups:
        for recorded in ledger.episodes(phase=f"{PHASE}/{group}"):
            key, attempt = plan_key(recorded.key), recorded.key.sample // ATTEMPT_STRIDE
            if key is not None and attempt >= found.get(key, (0, None))[0]:
                found[key] = attempt, recorded.episode
    return {key: episode for key, (_, episode) in found.items()}


class LedgerStore:
    """The store of `eval.run.run`. The ledger's owner closes it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._attempts: Counter[str] = Counter()

    def load(self, plan: EvalPlan) -> dict[str, Episode]:
        found, self._attempts = _load(self._ledger, plan)
        return found

    def put(self, planned: PlannedEpisode, episode: Episode) -> None:
        self._ledger.put_episode(ledger_key(planned, self._attempts[planned.key]), episode)
        self._attempts[planned.key] += 1

    def attempts(self, planned: PlannedEpisode) -> int:
        return self._attempts[planned.key]

    def flush(self) -> None:
        self._ledger.flush()
