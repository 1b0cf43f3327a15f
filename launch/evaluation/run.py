"""`evaluate`: plan, check, play what the ledger does not have, aggregate, write RUN/results.json.

Runs in the process of the command. Owns the model for the length of the evaluation and the folder's lock. Resumes:
episodes that have a score in the ledger are not played again, and recorded replies are not asked for again. A failed
coverage gate leaves results.json behind. Ctrl-C finishes what is in flight (a second one gives up).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from common.errors import ConfigError
from common.run_folder import RunFolder
from envs.client.client import Client
from envs.judges.model import ModelJudge
from envs.ledger import LEDGER_FILE, Ledger, LedgerNotStarted, LedgerReader
from envs.players.chat import ChatPlayer
from envs.types import Score
from eval.aggregate import outcome_of
from eval.estimate import estimate
from eval.plan import EvalPlan, make_plan, roles_of
from eval.progress import ProgressFile
from eval.results import RESULTS_FILE, LowCoverage, Results
from eval.run import Contestants, Progress, run_plan
from eval.store import LedgerStore
from launch.evaluation.config import EvalRunConfig
from launch.evaluation.model import Identity, Seated, identify, seat
from launch.evaluation.preflight import preflight

OnProgress = Callable[[Progress], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Options:
    """How an evaluation is run; nothing here changes its results."""

    on_progress: OnProgress | None = None
    say: Say | None = None
    dry_run: bool = False


def evaluate(
    config: EvalRunConfig, folder: Path, on_progress: OnProgress | None = None, *, say: Say | None = None
) -> Results:
    """Evaluate and write RUN/results.json. say: takes the lines of the dry run; None leaves the dry run out.

    Raises ConfigError when a role has no endpoint, Interrupted, or LowCoverage after writing what there is.
    """
    results = _run(config, folder, _Options(on_progress, say))
    assert results is not None
    return results


def dry_run(config: EvalRunConfig, folder: Path, say: Say) -> None:
    """Ask everybody once and tell what the evaluation would take. Raises UsageError, ConfigError or GateError."""
    _run(config, folder, _Options(say=say, dry_run=True))


def _run(config: EvalRunConfig, folder: Path, options: _Options) -> Results | None:
    identity = identify(config, folder)
    opponents = config.opponents(os.environ)
    plan = make_plan(config.questions, identity.model, opponents=opponents)
    _require_endpoints(plan, config)
    with RunFolder(folder).lock():
        # Not under a run that is still alive: it would find another configuration than its own.
        _forget_empty(folder)
        run = RunFolder.prepare(folder, config, inputs={"model": identity.model, **opponents})
        progress = ProgressFile(run.path)
        try:
            results = uvloop.run(_evaluate(config, plan, identity, run, options, progress))
        except LowCoverage as e:
            e.results.save(run.path / RESULTS_FILE)
            raise
        finally:
            progress.remove()
        if results is not None:
            results.save(run.path / RESULTS_FILE)
    return results


def _forget_empty(folder: Path) -> None:
    """A folder without an episode (a dry run, a model that did not answer) takes any configuration."""
    if _nothing_recorded(folder):
        RunFolder(folder).config.unlink(missing_ok=True)


def _nothing_recorded(folder: Path) -> bool:
    ledger = RunFolder(folder).ledger
    if not (ledger / LEDGER_FILE).is_file():
        return not (folder / RESULTS_FILE).exists()
    try:
        with LedgerReader(ledger) as reader:
            return not reader.keys()
    except LedgerNotStarted:
        return True


def _require_endpoints(plan: EvalPlan, config: EvalRunConfig) -> None:
    """Every role that a task needs has an endpoint. Raises one ConfigError for all that are missing."""
    missing: dict[str, list[str]] = {}
    for task in plan.tasks:
        for role in roles_of(task.spec, task.profile):
            if getattr(config.client, role, None) is None and role != "critic":
                missing.setdefault(role, []).append(task.spec.name)
    if missing:
        raise ConfigError(
            [f"client.{role}: missing; needed by {', '.join(tasks)}" for role, tasks in sorted(missing.items())],
            where=f"suite {config.suite!r}",
            fix="name an endpoint, e.g. client.judge.model=… client.judge.base_url=… (or --judge api:MODEL@URL)",
        )


async def _evaluate(
    config: EvalRunConfig,
    plan: EvalPlan,
    identity: Identity,
    run: RunFolder,
    options: _Options,
    progress: ProgressFile,
) -> Results | None:
    with Ledger(run.ledger) as ledger:
        store = LedgerStore(ledger)
        spent = sum(cost.cost_usd for cost in ledger.costs())
        client = Client(config.client_config(run.path), spent_usd=spent, on_abandoned=ledger.put_call)
        try:
            async with seat(config, identity, client, run) as seated:
                if options.say is not None:
                    await _check(plan, store, seated, client, ledger, run, options.say)
                if options.dry_run:
                    return None
                with _stopping() as stopped:
                    return await run_plan(
                        plan,
                        _contestants(config, plan, identity, seated, client),
                        store,
                        name=config.name,
                        on_progress=_both(progress.update, options.on_progress),
                        should_stop=stopped,
                        provenance={"source": identity.source, "engine": seated.engine, **plan.opponents},
                    )
        finally:
            await client.close()


async def _check(
    plan: EvalPlan, store: LedgerStore, seated: Seated, client: Client, ledger: Ledger, run: RunFolder, say: Say
) -> None:
    """The dry run, on what is still to be played."""
    seats = {e.key: task.spec.seats for task in plan.tasks for e in task.episodes}
    scored = {k for k, e in store.load(plan).items() if isinstance(outcome_of(e, seats[k]), Score)}
    checked = await preflight(
        plan, await estimate(plan, scored), seated.player, client, run.path, max_context=seated.max_context
    )
    for call in checked.spent:
        ledger.put_call(call)
    if scored:
        say(f"{len(scored)} of {len(plan.episodes)} episodes are recorded already")
    for line in checked.lines:
        say(line)


def _contestants(
    config: EvalRunConfig, plan: EvalPlan, identity: Identity, seated: Seated, client: Client
) -> Contestants:
    specs = [judge for task in plan.tasks for judge in task.spec.judges_under(task.profile) if judge.role != "critic"]
    partner = ChatPlayer(client, temperature=config.partner_temperature) if config.client.partner else None
    return Contestants(
        model=identity.model,
        policy=seated.player,
        partner=partner,
        judge=ModelJudge(client, specs) if specs else None,
        opponents=plan.opponents,
    )


def _both(first: OnProgress, second: OnProgress | None) -> OnProgress:
    def update(progress: Progress) -> None:
        first(progress)
        if second is not None:
            second(progress)

    return update


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask to stop after what is in flight; a second SIGINT interrupts at once.

    Afterwards they mean what they meant before: a training that evaluates itself catches them too.
    """
    asked = False
    loop = asyncio.get_running_loop()
    handled: dict[signal.Signals, signal._HANDLER] = {}

    def ask(signum: signal.Signals) -> None:
        nonlocal asked
        if asked and signum is signal.SIGINT:
            loop.remove_signal_handler(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        asked = True

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(signum)
            try:
                loop.add_signal_handler(signum, ask, signum)
            except (ValueError, RuntimeError):
                break  # Not the main thread: its owner handles signals.
            handled[signum] = before
        yield lambda: asked
    finally:
        for signum, before in handled.items():
            loop.remove_signal_handler(signum)
            signal.signal(signum, before)
