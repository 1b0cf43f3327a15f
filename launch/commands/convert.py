"""`osim convert …`."""

from __future__ import annotations

import typer

from launch.commands.options import example, not_built_yet

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="convert", help="Checkpoints between Hugging Face and Megatron.")


@group.command("hf-to-megatron", **example("osim convert hf-to-megatron"))
def hf_to_megatron() -> None:
    """TBD."""
    not_built_yet("convert hf-to-megatron")


@group.command("megatron-to-hf", **example("osim convert megatron-to-hf"))
def megatron_to_hf() -> None:
    """TBD."""
    not_built_yet("convert megatron-to-hf")
