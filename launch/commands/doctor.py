"""`osim doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import ExitCode
from launch.commands.options import example, say

app = typer.Typer()
MARKS = {"ok": "✓", "missing": "✗", "absent": "–"}


@app.command(**example("osim doctor"))
def doctor(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where runs will be written.")] = Path("runs"),
) -> None:
    """What this machine has and lacks, each line with its version or its fix."""
    from launch.doctor import examine

    missing = []
    for finding in examine(out.absolute()):
        fix = f"  (fix: {finding.fix})" if finding.fix else ""
        say(f"{MARKS[finding.state]} {finding.subject:<19} {finding.detail}{fix}")
        if finding.state == "missing":
            missing.append(finding.subject)
    if missing:
        say(f"required and missing: {', '.join(missing)}", err=True)
        raise typer.Exit(int(ExitCode.USAGE))
