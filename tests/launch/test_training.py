"""What `osim rl` refuses before a folder or a process exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UsageError
from launch.training import rl
from rl.config import RLConfig, TaskConfig


def test_rl_on_a_task_whose_rows_are_not_here_is_refused_before_anything_starts(tmp_path: Path) -> None:
    config = RLConfig(model=tmp_path / "model", tasks=(TaskConfig(task="fantom"),), steps=1)
    with pytest.raises(UsageError, match="no split 'train' here"):
        rl(config, tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()
