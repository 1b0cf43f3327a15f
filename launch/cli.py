"""The `osim` command. Each verb is a thin function over a package, in `launch/commands/`.

Invariants (tests/launch/test_cli.py): `osim --help` imports nothing heavy; an OsimError is printed in one piece,
without a traceback, and becomes the exit code; Ctrl-C exits 4. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import sys

import typer

from common.errors import Interrupted, run_main
from launch.commands import (
    bench,
    config,
    convert,
    data,
    doctor,
    evaluation,
    midtrain,
    plan,
    quickstart,
    rl,
    serve,
    submit,
    task,
    view,
    why,
)
from launch.local import RankCrashed

CTRL_C = 130
"""What typer turns a KeyboardInterrupt into."""

app = typer.Typer(
    name="osim",
    help="Turn a base language model into a human simulator, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 118},
)
for module in (
    quickstart,
    data,
    midtrain,
    convert,
    serve,
    rl,
    evaluation,
    task,
    bench,
    view,
    plan,
    submit,
    doctor,
    why,
    config,
):
    app.add_typer(module.app)


def run(arguments: list[str]) -> None:
    """Run one command line. Raises OsimError, or SystemExit with the code of a usage error."""
    try:
        app(arguments, prog_name="osim")
    except RankCrashed as e:
        # The traceback that matters is the rank's, and it is in the text.
        print(e, file=sys.stderr)
        sys.exit(1)
    except SystemExit as e:
        if e.code == CTRL_C:
            raise Interrupted(
                "interrupted", fix="run the same command again; it resumes what is unfinished"
            ) from None
        raise


def main() -> None:
    """The console script."""
    run_main(lambda: run(sys.argv[1:]))
