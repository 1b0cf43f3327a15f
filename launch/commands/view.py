"""`osim view`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import example

app = typer.Typer()


@app.command(**example("osim view runs/quickstart/eval-midtrained"))
def view(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Serve a run's report and transcript viewer on this machine, rendered anew while the run goes on."""
    import threading

    from eval.viewer import RunViewer, serve

    with serve(RunViewer(run, _render_parts(run)), port) as address:
        typer.echo(f"{run}: {address}  (Ctrl-C ends)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo("stopped")


def _render_parts(run: Path) -> Callable[[], str] | None:
    """One page over the runs inside a quickstart's folder; None for a single run."""
    parts = sorted(path.parent for path in run.glob("*/config.yaml"))
    if not parts:
        return None

    def render() -> str:
        from eval.report.from_run import run_sections
        from eval.report.write import render_report

        return render_report(run.name, run_sections(parts), live=True)[0]

    return render
