"""`osim eval likeness`: a run's turns against human turns; writes RUN/likeness.json, which the report shows."""

from __future__ import annotations

import os
from pathlib import Path

from common.config import load
from common.errors import UsageError
from common.files import write_json
from common.run_folder import RunFolder
from envs.ledger import LedgerReader
from eval.human_likeness.from_run import LIKENESS_FILE, Likeness, likeness, read_human
from eval.plan import make_plan
from eval.reactions import read_people
from eval.results import Results
from eval.store import load_episodes
from launch.evaluation.config import EvalRunConfig


def likeness_of_run(folder: Path, human: Path | None = None, *, with_classifier: bool = True) -> Likeness:
    """Measure and write. Raises UsageError for a folder without a finished evaluation."""
    run = RunFolder(folder)
    if not run.config.is_file():
        raise UsageError("not a run folder", where=str(folder), fix="give the folder of osim eval run")
    config, recorded = load(EvalRunConfig, run.config), Results.load(folder)
    plan = make_plan(config.questions, recorded.model, opponents=config.opponents(os.environ))
    with LedgerReader(run.ledger) as ledger:
        episodes = load_episodes(ledger, plan)
    played = [(t.spec, episodes[e.key]) for t in plan.tasks for e in t.episodes if e.key in episodes]
    people = read_human(human) if human is not None else None
    customers = read_people(human) if human is not None else []
    found = likeness(played, name=recorded.name, human=people, customers=customers, with_classifier=with_classifier)
    write_json(folder / LIKENESS_FILE, found.model_dump(mode="json"))
    return found
