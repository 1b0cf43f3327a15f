"""`osim eval export`: results and recorded episodes of one run folder in another tool's format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from common.files import write_json
from common.run_folder import RunFolder
from envs.ledger import LEDGER_FILE, LedgerReader
from envs.types import Episode
from eval.export import inspect_log, parquet, table, wandb
from eval.report.from_run import report_runs
from eval.results import RESULTS_FILE, Results
from eval.store import episodes_by_key

Format = Literal["table", "lm-eval", "json", "parquet", "inspect", "wandb"]


def export_run(run: Path, form: Format, out: Path, *, online: bool = False) -> Iterator[str]:
    """Write the files; yields what to tell. Raises UsageError for a folder without results."""
    results = Results.load(run)
    if form == "table":
        yield table.markdown(results)
        return
    out.mkdir(parents=True, exist_ok=True)
    if form == "lm-eval":
        path = out / "lm_eval_results.json"
        write_json(path, table.lm_eval_json(results))
        yield str(path)
    elif form == "json":
        yield str(shutil.copyfile(run / RESULTS_FILE, out / RESULTS_FILE))
    elif form == "parquet":
        path = out / "episodes.parquet"
        yield f"{path}: {parquet.export_parquet([results], path, recorded(run, results))} episodes"
    elif form == "inspect":
        paths = inspect_log.export_inspect(results, out, recorded(run, results))
        yield from map(str, paths)
        yield f"open them: inspect view --log-dir {out}"
    else:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.html"
            report_runs([run], report)
            mode: Literal["online", "offline"] = "online" if online else "offline"
            made = wandb.export_wandb(results, out, recorded(run, results), mode=mode, report=report)
        yield f"{made}" if online else f"{made}: send it with: wandb sync {made}"


def recorded(run: Path, results: Results) -> dict[str, Episode]:
    """Episodes of the results by key; nothing where the ledger is gone."""
    folder = RunFolder(run).ledger
    if not (folder / LEDGER_FILE).is_file():
        return {}
    with LedgerReader(folder) as ledger:
        return episodes_by_key(ledger, results.groups)
