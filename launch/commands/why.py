"""`osim why`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import example, say

app = typer.Typer()


@app.command(**example("osim why runs/quickstart"))
def why(run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]) -> None:
    """What a running or stuck run is waiting for: processes, Slurm jobs, rollout servers."""
    from launch.why import inspect

    report = inspect(run)
    say(f"{report.folder}: {report.verdict}")
    for job in report.jobs:
        say(f"  {job.line}")
    for process in report.processes:
        facts = f"{process.status}, CPU {process.cpu_percent:.0f} %, {process.memory_gib:.2f} GiB"
        say(f"  process {process.pid} ({process.what}): {facts}")
    for name, line in report.log_ends:
        say(f"  {name}: {line:.160}")
