"""`osim launch`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()


RECIPE, CLUSTER = "launch/recipes/midtrain-qwen3-8b.yaml", "launch/recipes/clusters/h100-8x8.yaml"


@app.command(
    "launch",
    # Whatever is asked of it gets the one answer.
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    **example(f"osim launch --recipe {RECIPE} --cluster {CLUSTER} --dry-run"),
)
def submit() -> None:
    """Submit a recipe through NeMo-Run: local, Slurm, Slurm over SSH. Not built yet: exits 2."""
    not_built_yet("launch")
