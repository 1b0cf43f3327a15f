"""The environments that `make` builds beside the main one (.venv-sglang, .venv-nemo-run).

Nothing is imported from them: their pins contradict ours. What is in them is read off their files.
"""

from __future__ import annotations

from pathlib import Path


def version_in(environment: Path, distribution: str) -> str | None:
    """Of a package, by the name of its dist-info; None where the environment is not there or was never finished."""
    found = sorted(environment.glob(f"lib/python*/site-packages/{distribution}-*.dist-info"))
    if not found or not (environment / ".ready").exists():
        return None
    return found[0].name.removeprefix(f"{distribution}-").removesuffix(".dist-info")
