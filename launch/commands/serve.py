"""`osim serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launch.commands.options import example

app = typer.Typer()


@app.command(**example("osim serve runs/quickstart/midtrain/hf --port 30000"))
def serve(
    model: Annotated[Path, typer.Argument(help="Hugging Face folder.", show_default=False)],
    port: Annotated[int | None, typer.Option(help="Port; none takes a free one.", min=1, max=65535)] = None,
    logs: Annotated[Path, typer.Option(help="Where the server's log goes.")] = Path("runs/serve"),
    api_key_variable: Annotated[
        str | None, typer.Option(help="Variable with the key to demand; none: a fresh key, in a file in LOGS.")
    ] = None,
    tensor_parallel: Annotated[int, typer.Option(help="GPUs of the server.", min=1)] = 1,
) -> None:
    """An SGLang rollout server for a checkpoint, on GPU or CPU (make sglang). Ctrl-C ends it."""
    import asyncio

    from launch.serving import serve_until_stopped
    from rl.rollout.config import RolloutConfig

    config = RolloutConfig(
        kind="sglang", port=port, tensor_parallel=tensor_parallel, api_key_variable=api_key_variable
    )
    asyncio.run(serve_until_stopped(model, config, logs, typer.echo))
