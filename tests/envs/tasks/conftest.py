"""Real benchmark samples, where this checkout has them beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Examples may be slow on a loaded machine; slowness is measured in tests/bench, not here.
settings.register_profile("osim", deadline=None)
settings.load_profile("osim")


@pytest.fixture(scope="session")
def hitom_samples() -> Path:
    """60 rows of the authors' Hi-ToM file: format and label checks, never training."""
    path = Path(__file__).parents[3].parent / "shared" / "data" / "benchmarks" / "hitom" / "hitom_60.jsonl"
    if not path.is_file():
        pytest.skip("the benchmark samples are not beside this checkout (../shared/data/benchmarks)")
    return path
