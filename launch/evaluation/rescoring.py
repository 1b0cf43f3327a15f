"""`osim eval rescore`: recorded episodes under another scorer profile, or by another judge. Nothing is generated.

Writes a run folder of its own (config.yaml, ledger, results.json), so that it can be reported and compared like any
other; the original is only read. With a judge its replies are kept in OUT/replies.sqlite.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from common.config import load
from common.errors import UsageError
from common.run_folder import RunFolder
from envs.client.client import Client
from envs.client.config import Endpoint
from envs.judges.model import ModelJudge
from envs.ledger import Ledger, LedgerReader
from envs.registry import profile_of
from envs.types import Episode
from eval.judge_agreement import JudgeAgreement, judge_agreement
from eval.plan import EvalPlan, make_plan
from eval.rescore import rescore
from eval.results import RESULTS_FILE, Results
from eval.store import LedgerStore, load_episodes
from launch.evaluation.config import EvalRunConfig


@dataclass(frozen=True)
class Rescored:
    """The new results, and how a new judge agrees with the recorded one (empty without a judge)."""

    results: Results
    agreement: tuple[JudgeAgreement, ...]


def rescore_run(folder: Path, profile: str | None, out: Path, *, judge: Endpoint | None = None) -> Rescored:
    """Rescore the evaluation in `folder`; writes OUT. profile None: the recorded one. Raises UsageError."""
    run = RunFolder(folder)
    if not run.config.is_file():
        raise UsageError("not a run folder", where=str(folder), fix="give the folder of osim eval run")
    if out.resolve() == folder.resolve():
        raise UsageError("the original would be overwritten", where=str(out), fix="give another folder as --out")
    config = load(EvalRunConfig, run.config)
    recorded = Results.load(folder)
    plan = make_plan(config.questions, recorded.model, opponents=config.opponents(os.environ))
    with LedgerReader(run.ledger) as ledger:
        episodes = load_episodes(ledger, plan)
    if not episodes:
        raise UsageError(
            "the ledger has no episode of this run's plan", where=str(folder), fix="finish it: osim eval run"
        )
    changed = _changed(config, profile, judge, recorded.name)
    new = make_plan(changed.questions, recorded.model, opponents=changed.opponents(os.environ))
    for task in new.tasks:
        profile_of(task.spec, changed.profile)
    target = RunFolder.prepare(out, changed, inputs={"rescored": str(folder.resolve().name), "model": recorded.model})
    with target.lock():
        results = asyncio.run(_rescore(plan, episodes, new, changed, target, ask=judge is not None))
        results.save(target.path / RESULTS_FILE)
    return Rescored(results, judge_agreement(recorded, results) if judge else ())


def _changed(config: EvalRunConfig, profile: str | None, judge: Endpoint | None, name: str) -> EvalRunConfig:
    label = ", ".join([name, *([profile] if profile else []), *([f"judged by {judge.model}"] if judge else [])])
    fields = config.model_dump()
    fields["profile"], fields["name"] = profile or config.profile, label
    if judge is not None:
        fields["client"]["judge"] = judge.model_dump()
    return EvalRunConfig.model_validate(fields)


async def _rescore(
    plan: EvalPlan,
    episodes: dict[str, Episode],
    new: EvalPlan,
    config: EvalRunConfig,
    target: RunFolder,
    *,
    ask: bool,
) -> Results:
    with Ledger(target.ledger) as ledger:
        spent = sum(cost.cost_usd for cost in ledger.costs())
        client = Client(config.client_config(target.path), spent_usd=spent, on_abandoned=ledger.put_call)
        try:
            specs = [
                judge
                for task in new.tasks
                for judge in task.spec.judges_under(task.profile)
                if judge.role != "critic"
            ]
            judge = ModelJudge(client, specs) if ask and specs else None
            results, found = await rescore(plan, episodes, new, name=config.name, judge=judge)
        finally:
            await client.close()
        store = LedgerStore(ledger)
        known = store.load(new)
        for planned in new.episodes:
            if planned.key in found and planned.key not in known:
                store.put(planned, found[planned.key])
        store.flush()
    return results
