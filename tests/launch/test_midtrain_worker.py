"""An evaluation in the middle of a training, as launch.midtrain_worker passes it in."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import Interrupted
from launch import midtrain_worker


def test_a_signal_that_an_evaluation_took_still_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr(midtrain_worker, "evaluate", interrupted)
    monkeypatch.setattr(midtrain_worker, "evaluation_config", lambda *_: None)
    noted: list[int] = []
    original = signal.signal(signal.SIGTERM, lambda number, _: noted.append(number))
    try:
        evaluate = midtrain_worker.make_evaluate(SimpleNamespace(generation=object()))
        assert "stopped" in evaluate(Path("hf"), Path("results"))["failed"]
    finally:
        signal.signal(signal.SIGTERM, original)
    assert noted == [signal.SIGTERM]
