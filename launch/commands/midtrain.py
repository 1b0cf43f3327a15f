"""`osim midtrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import Out, Overrides, Recipe, example

app = typer.Typer()
SHARD, TOKENIZER = "runs/quickstart/shards/train", "runs/quickstart/tokenizer/hf"


@app.command(
    **example(
        "osim midtrain --recipe launch/recipes/quickstart/midtrain.yaml --ranks 2 --out runs/mine \\",
        f"    tokenizer={TOKENIZER} 'data.sources=[{{name: mine, prefixes: [{SHARD}]}}]'",
    )
)
def midtrain(
    recipe: Recipe,
    out: Out = Path("runs/midtrain"),
    ranks: Annotated[int, typer.Option(help="Local processes; must fit `parallel`.", min=1)] = 1,
    overrides: Overrides = None,
) -> None:
    """Behavioural midtraining (SFT) on packed shards, on local processes. Run again, it resumes."""
    from common.config import load
    from launch.training import midtrain as run
    from megatron_osim.config import MidtrainConfig

    done = run(load(MidtrainConfig, recipe, overrides or ()), out.absolute(), ranks)
    last = done.read_metrics("midtrain")[-1]
    typer.echo(f"{out}: step {last['step']}, loss {last['loss']:.4f}, {last['tokens_per_s']:.0f} tokens/s")
