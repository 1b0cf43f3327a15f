"""The routing rules applied to whole batches: the same rows as `routing.apply_rule` gives one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_tools.columns import Columns
from data_tools.conversation import ROLES, ChatMessage
from data_tools.routing import SWAPPED_ROLE, SourceRule, reshape
from data_tools.texts import Texts

_SWAPPED_CODE = np.array([ROLES.index(SWAPPED_ROLE[role]) for role in ROLES], np.uint8)
_SYSTEM = ROLES.index("system")


def apply_rules(rules: Mapping[str, SourceRule], rows: Columns, *, strip_system: bool = False) -> Columns:
    """`apply_rule` for every row; `rules` by source. Rows that a rule only swaps are not looked at one by one."""
    reshaped = np.flatnonzero(_needs_reshaping(rules, rows, strip_system=strip_system))
    if len(reshaped):
        changed = {
            i: reshape(rules[rows.sources[i]], rows.messages(i), strip_system=strip_system) for i in reshaped.tolist()
        }
        rows = _replace(rows, changed)
    swapped = rows.sources.lookup(lambda source: rules[source].swap, np.bool_)
    if swapped.any():
        roles = np.where(np.repeat(swapped, rows.counts), _SWAPPED_CODE[rows.roles], rows.roles)
        rows = replace(rows, roles=roles)
    return rows


def _needs_reshaping(rules: Mapping[str, SourceRule], rows: Columns, *, strip_system: bool) -> NDArray[np.bool_]:
    """bool[R]: the row gets other messages, not only other roles."""
    if not strip_system and not any(r.add_empty_system or r.keep_last_turns is not None for r in rules.values()):
        return np.zeros(len(rows), np.bool_)
    system = np.diff(np.concatenate([[0], np.cumsum(rows.roles == _SYSTEM)])[rows.row_starts])  # messages per row
    if strip_system:
        needs = system > 0
    else:
        needs = (system == 0) & rows.sources.lookup(lambda source: rules[source].add_empty_system, np.bool_)
    keep = rows.sources.lookup(lambda source: rules[source].keep_last_turns or 0, np.int64)
    return needs | ((keep > 0) & (rows.counts - system > keep))


def _replace(rows: Columns, changed: Mapping[int, Sequence[ChatMessage]]) -> Columns:
    """The rows, some of them with other messages."""
    old, contents = list(rows.contents), []
    roles: list[NDArray[np.uint8]] = []
    counts = rows.counts.copy()
    start = 0  # of the messages that are still to be copied
    for i, messages in changed.items():
        stop = rows.row_starts[i]
        new = Columns.of([messages])
        contents += [*old[start:stop], *new.contents]
        roles += [rows.roles[start:stop], new.roles]
        counts[i] = len(messages)
        start = rows.row_starts[i + 1]
    contents += old[start:]
    return replace(
        rows, contents=Texts.of(contents), roles=np.concatenate([*roles, rows.roles[start:]]), counts=counts
    )
