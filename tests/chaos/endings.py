"""Processes that end in every way, for the tests of the judge. Imports nothing heavy: its processes import it."""

from __future__ import annotations

import time

from common.errors import UsageError


def refuse() -> None:
    raise UsageError("no", fix="do something else")


def crash() -> None:
    raise RuntimeError("a bug")


def stay() -> None:
    time.sleep(600)
