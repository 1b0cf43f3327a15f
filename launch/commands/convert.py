"""`osim convert hf-to-megatron / megatron-to-hf`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from launch.commands.options import example

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="convert", help="Checkpoints between Hugging Face and Megatron.")
Tensor = Annotated[int, typer.Option(help="Tensor parallel ranks that do it, to split the memory.", min=1)]


@group.command("hf-to-megatron", **example("osim convert hf-to-megatron runs/quickstart/midtrain/hf runs/start"))
def to_megatron(
    hf: Annotated[Path, typer.Argument(help="Hugging Face folder with safetensors.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Run folder; gets checkpoints/step-00000000.", show_default=False)],
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    tensor: Tensor = 1,
) -> None:
    """A Megatron checkpoint with the weights of a Hugging Face folder and a fresh optimizer."""
    from common.errors import UsageError
    from launch.conversion import hf_to_megatron
    from megatron_osim.config import ParallelConfig

    choices: dict[str, Literal["fp32", "bf16"]] = {"fp32": "fp32", "bf16": "bf16"}
    if precision not in choices:
        raise UsageError(f"no such precision: {precision!r}", fix="fp32 or bf16")
    typer.echo(hf_to_megatron(hf, out, ParallelConfig(tensor=tensor), choices[precision]))


@group.command("megatron-to-hf", **example("osim convert megatron-to-hf runs/quickstart/midtrain exported"))
def to_hf(
    run: Annotated[Path, typer.Argument(help="Run folder of midtrain or hf-to-megatron.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to write; must not exist.", show_default=False)],
    tensor: Tensor = 1,
) -> None:
    """The newest checkpoint of a run as Hugging Face safetensors, config and tokenizer."""
    from launch.conversion import megatron_to_hf
    from megatron_osim.config import ParallelConfig

    megatron_to_hf(run, out, ParallelConfig(tensor=tensor))
    typer.echo(out)
