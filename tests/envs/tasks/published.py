"""Rows in the form in which OdysSim publishes them, and one scripted reply to a row."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from envs.judges.base import Judge
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.registry import TaskSpec
from envs.types import Episode, Row, Score


def as_parquet(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """One row per record, `extra_info` as a struct in which absent fields are null: as pandas and verl write it."""
    columns = sorted({name for record in records for name in record})
    pq.write_table(pa.Table.from_pylist([{c: record.get(c) for c in columns} for record in records]), path)
    return path


def as_jsonl(path: Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """One record a line."""
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def episode_of(spec: TaskSpec, row: Row, reply: str, profile: Any = "strict", judge: Judge | None = None) -> Episode:
    """The row, played with one reply."""
    env = spec.env(profile)
    players = {seat: ScriptedPlayer([reply]) for seat in env.seats}
    return asyncio.run(play(env, row, players, judge=judge, seed=0, scorer=profile, limits=spec.limits))


def score(spec: TaskSpec, row: Row, reply: str, profile: Any = "strict", judge: Judge | None = None) -> Score:
    """The score of one reply; fails the test when there is none."""
    (outcome,) = episode_of(spec, row, reply, profile, judge).outcomes.values()
    assert isinstance(outcome, Score), outcome
    return outcome
