"""No private text of one seat reaches another seat's view: a string search over all rows of all tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest

from common.errors import UsageError
from envs import registry
from envs.check import leaks
from envs.registry import TaskSpec
from envs.types import Row

MOST = 60
"""Of generated rows; invented examples are few and all searched."""


def all_rows(spec: TaskSpec) -> list[Row]:
    rows = list(spec.examples()) if spec.examples is not None else []
    for split in spec.splits:
        try:
            rows += islice(spec.rows(split, MOST, 0), MOST)
        except UsageError:
            # Its data is a person's own copy.
            assert rows
    return rows


SHARED = [name for name in registry.names() if len(registry.get(name).env("strict").seats) > 1]


@pytest.mark.parametrize("name", SHARED)
def test_no_private_text_reaches_another_seats_view(name: str) -> None:
    spec = registry.get(name)
    rows = all_rows(spec)
    assert rows and spec.private is not None
    assert any(texts for row in rows for texts in spec.private(row).values())
    assert leaks(spec, rows) == []


def test_the_search_finds_a_planted_leak() -> None:
    spec = registry.get("negotiate")
    assert spec.private is not None
    rows = all_rows(spec)[:5]
    planted = replace(spec, private=lambda row: {"opener": ["<offer>"], "responder": ["You are "]})
    assert {v.rule for v in leaks(planted, rows)} == {"privacy"}
