"""`osim bench`: the benchmarks of tests/bench, one process each, one after the other: none disturbs another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from common.errors import GateError, UsageError
from launch.commands.options import example

app = typer.Typer()
ROOT = Path(__file__).resolve().parents[2]


@app.command(**example("osim bench --list", "osim bench play"))
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Names or parts of names; none: all.")] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Name the benchmarks and stop.")] = False,
) -> None:
    """The benchmarks of tests/bench, side by side in one run. Each prints its own comparison."""
    found = {path.stem.removeprefix("bench_"): path for path in sorted(ROOT.glob("tests/bench/**/bench_*.py"))}
    wanted = names or [""]
    chosen = {
        name: path
        for name, path in found.items()
        if any(name == part or (part in name and part not in found) for part in wanted)
    }
    if not chosen:
        raise UsageError(
            "no such benchmark", fix=f"one of {', '.join(found) or 'none: run it from a source checkout'}"
        )
    failed = []
    for name, path in chosen.items():
        typer.echo(name if only_list else f"== {name}")
        if only_list:
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if subprocess.run([sys.executable, "-m", module], cwd=ROOT, check=False).returncode:
            failed.append(name)
    if failed:
        raise GateError(f"failed: {', '.join(failed)}", where="osim bench", fix="see their output above")
