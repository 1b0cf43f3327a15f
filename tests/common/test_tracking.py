"""W&B is a copy: what it needs is asked for in words, and a run without it is not touched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common.errors import UsageError
from common.run_folder import RunFolder
from common.tracking import WandbConfig, WandbTracker


def test_online_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UsageError, match="WANDB_API_KEY is not set"):
        WandbTracker(WandbConfig(mode="online"), RunFolder(tmp_path), WandbConfig())


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"osim\[wandb\]"):
        WandbTracker(WandbConfig(), RunFolder(tmp_path), WandbConfig())
