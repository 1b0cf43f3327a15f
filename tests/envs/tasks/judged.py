"""What tests of judged tasks need: a judge with fixed verdicts, plays of one row, rows as files hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.judges.base import JudgeFailed, Verdict
from envs.play import play
from envs.players.scripted import ScriptedPlayer
from envs.registry import Profile, TaskSpec, with_data
from envs.types import Episode, Row, Score, Seat

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data" / "benchmarks"


class FixedJudge:
    """Gives each spec the verdict it was told; a spec without one fails. Remembers what it was asked."""

    def __init__(self, spec: TaskSpec, verdicts: Mapping[str, Mapping[str, Any]]) -> None:
        schemas = {judge.id: judge.schema for judge in spec.judges}
        self.verdicts = {name: schemas[name].model_validate(value) for name, value in verdicts.items()}
        self.specs = {judge.id: judge for judge in spec.judges}
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        self.specs[spec].check_fields(fields)
        self.asked.append((spec, fields))
        return Verdict(self.verdicts[spec]) if spec in self.verdicts else JudgeFailed("down")


def played(
    spec: TaskSpec,
    row: Row,
    says: Mapping[Seat, Sequence[str]],
    *,
    judge: FixedJudge | None = None,
    profile: Profile = "strict",
    **options: Any,
) -> Episode:
    """One episode; a seat repeats its last line, seats without lines say "Hm."."""
    env = spec.env(profile)

    def speaker(seat: Seat) -> ScriptedPlayer:
        lines = list(says.get(seat, ["Hm."]))
        return ScriptedPlayer(lambda ask: lines.pop(0) if len(lines) > 1 else lines[0])

    players = {seat: speaker(seat) for seat in env.seats}
    return asyncio.run(play(env, row, players, judge=judge, seed=0, limits=spec.limits, scorer=profile, **options))


def value(episode: Episode, seat: Seat) -> float:
    outcome = episode.outcomes[seat]
    assert isinstance(outcome, Score), outcome
    return outcome.value


def rows_from_parquet(spec: TaskSpec, record: Mapping[str, Any], folder: Path) -> list[Row]:
    """The rows of a Parquet file that holds one published record, beside the empty fields of other tasks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    padded = {**record, "extra_info": {**record["extra_info"], "story": None, "persona": None}}
    path = folder / f"{spec.name}.parquet"
    pq.write_table(pa.Table.from_pylist([padded]), path)
    return list(with_data(spec, path).rows("test", None, 0))
