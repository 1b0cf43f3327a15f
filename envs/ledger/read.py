"""Questions to the ledger: resume, viewer, cost, replay. Any number of readers beside the one writer.

Every method reads a consistent snapshot; episodes come back equal to what was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from common.errors import DataError, UsageError, data_errors
from envs.ledger.codec import decode_episode, decode_outcome, decode_row
from envs.ledger.schema import (
    DAMAGED_FIX,
    LEDGER_FILE,
    Consumed,
    EpisodeKey,
    Recorded,
    connect,
    episode_digest,
    expand,
    sqlite_errors,
)
from envs.types import JudgeCall

CALL_COLUMNS = "role, model, request, reply, error, cost_usd, wall_s, prompt_tokens, completion_tokens, cached"
KEY_COLUMNS = "e.phase, e.step, e.prompt_id, e.sample"
CONTENT_COLUMNS = "e.seed, e.row, e.story, e.digest"


@dataclass(frozen=True)
class Cost:
    """Calls of one role and model."""

    role: str
    model: str
    calls: int
    failed: int
    cached: int
    cost_usd: float
    prompt_tokens: int
    completion_tokens: int


class LedgerReader:
    """Reads one ledger. `folder` is the run's ledger folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER_FILE
        if not self.path.is_file():
            raise UsageError("no ledger here", where=str(self.path), fix="give the folder of a run that has started")
        self._db = connect(self.path, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def keys(self, *, phase: str | None = None, step: int | None = None) -> list[EpisodeKey]:
        """Keys of the recorded episodes, sorted."""
        where, values = _filter(phase=phase, step=step)
        return sorted(EpisodeKey(*row) for row in self._query(f"SELECT {KEY_COLUMNS} FROM episodes e{where}", values))

    def episodes(self, *, phase: str | None = None, step: int | None = None) -> Iterator[Recorded]:
        """Recorded episodes in order of phase, step, prompt and sample; what a resumed run need not play again."""
        where, values = _filter(phase=phase, step=step)
        rows = self._query(
            f"SELECT e.id, {KEY_COLUMNS}, {CONTENT_COLUMNS} FROM episodes e{where} ORDER BY {KEY_COLUMNS}", values
        )
        for ident, *key, seed, row, story, digest in rows:
            yield Recorded(EpisodeKey(*key), self._episode(ident, seed, row, story, digest))

    def episode(self, key: EpisodeKey) -> Recorded:
        """One episode. Raises UsageError when there is none."""
        rows = self._query(
            f"SELECT e.id, {CONTENT_COLUMNS} FROM episodes e WHERE phase=? AND step=? AND prompt_id=? AND sample=?",
            (key.phase, key.step, key.prompt_id, key.sample),
        )
        if not rows:
            raise UsageError(f"no episode {key}", where=str(self.path), fix="keys() lists what there is")
        return Recorded(key, self._episode(*rows[0]))

    def consumed(self, *, step: int | None = None) -> list[Consumed]:
        """Training uses, in order."""
        where, values = ("", ()) if step is None else (" WHERE c.step=?", (step,))
        rows = self._query(
            f"SELECT c.step, {KEY_COLUMNS}, c.seat, c.context, c.component, c.advantage, c.weights "
            f"FROM consumed c JOIN episodes e ON e.id=c.episode{where} "
            f"ORDER BY c.step, {KEY_COLUMNS}, c.seat, c.context, c.component",
            values,
        )
        return [
            Consumed(at, EpisodeKey(*key), seat, context, component, advantage, self._weights(weights))
            for at, *key, seat, context, component, advantage, weights in rows
        ]

    def costs(self) -> list[Cost]:
        """What was spent, by role and model."""
        rows = self._query(
            "SELECT role, model, count(*), sum(error IS NOT NULL), sum(cached), sum(cost_usd), sum(prompt_tokens), "
            "sum(completion_tokens) FROM calls GROUP BY role, model ORDER BY role, model"
        )
        return [Cost(*row) for row in rows]

    def loose_calls(self) -> list[JudgeCall]:
        """Calls that belong to no episode: probes, auditors, turns that were given up."""
        return [
            self._call(c) for c in self._query(f"SELECT {CALL_COLUMNS} FROM calls WHERE episode IS NULL ORDER BY id")
        ]

    def outcome_counts(self, *, phase: str | None = None, step: int | None = None) -> dict[str, int]:
        """How many seats were "scored", of these "format_error", and unscored by reason."""
        where, values = _filter(phase=phase, step=step)
        counts: dict[str, int] = {}
        for unscored, format_error, n in self._query(
            "SELECT s.unscored, s.format_error, count(*) FROM seats s JOIN episodes e ON e.id=s.episode"
            f"{where}{' AND' if where else ' WHERE'} s.outcome IS NOT NULL GROUP BY 1, 2",
            values,
        ):
            for name in (unscored or "scored", "format_error" if format_error else None):
                if name:
                    counts[name] = counts.get(name, 0) + n
        return counts

    def verify(self) -> None:
        """Read every page and every blob. Raises DataError on the first damage."""
        self._check_pages()
        for name, data in self._query("SELECT hash, data FROM blobs"):
            expand(name, data)
        for _ in self.episodes():
            pass

    def _check_pages(self) -> None:
        """Read every page, and compare tables with their indexes (about 2 s for each GB)."""
        with sqlite_errors(self.path):
            found = self._db.execute("PRAGMA integrity_check").fetchall()
        if problems := [row[0] for row in found if row[0] != "ok"]:
            raise DataError("; ".join(problems[:3]), where=str(self.path), fix=DAMAGED_FIX)

    def _query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with sqlite_errors(self.path):
            return self._db.execute(sql, values).fetchall()

    def _blob(self, name: bytes) -> bytes:
        rows = self._query("SELECT data FROM blobs WHERE hash=?", (name,))
        if not rows:
            shown = name.hex() if isinstance(name, bytes) else repr(name)
            raise DataError(f"blob {shown} is missing", where=str(self.path), fix=DAMAGED_FIX)
        return expand(name, rows[0][0])

    def _weights(self, name: bytes | None) -> tuple[float, ...] | None:
        if name is None:
            return None
        content = self._blob(name)
        with self._decoding():
            return tuple(np.frombuffer(content, "<f8").tolist())

    def _episode(self, ident: int, seed: int, row: bytes, story: bytes, digest: bytes) -> Any:
        traces: dict[str, bytes] = {}
        outcomes: dict[str, str] = {}
        for seat, outcome, trace in self._query(
            "SELECT seat, outcome, trace FROM seats WHERE episode=? ORDER BY position", (ident,)
        ):
            traces[seat] = self._blob(trace)
            if outcome is not None:
                outcomes[seat] = outcome
        with self._decoding():
            found = episode_digest(seed, outcomes.values(), traces.values())
        if found != digest:
            raise DataError(f"episode {ident} is not what was written", where=str(self.path), fix=DAMAGED_FIX)
        calls = self._query(
            f"SELECT {CALL_COLUMNS} FROM calls WHERE episode=? ORDER BY id",
            (ident,),
        )
        contents = self._blob(row), self._blob(story)
        judge_calls = tuple(self._call(c) for c in calls)
        with self._decoding():
            scores = {seat: decode_outcome(orjson.loads(outcome)) for seat, outcome in outcomes.items()}
            return decode_episode(decode_row(contents[0]), contents[1], traces, scores, judge_calls)

    def _decoding(self) -> AbstractContextManager[None]:
        """What stored bytes of another shape raise, as DataError."""
        return data_errors(str(self.path), fix=DAMAGED_FIX, what="damaged")

    def _call(self, columns: tuple[Any, ...]) -> JudgeCall:
        role, model, request, reply, error, cost_usd, wall_s, prompt_tokens, completion_tokens, cached = columns
        content = self._blob(request)
        with self._decoding():
            asked = orjson.loads(content)
        return JudgeCall(
            role,
            model,
            asked,
            reply,
            error,
            cost_usd,
            wall_s,
            prompt_tokens,
            completion_tokens,
            cached=bool(cached),
        )


def _filter(*, phase: str | None, step: int | None) -> tuple[str, tuple[Any, ...]]:
    tests = [(name, value) for name, value in (("e.phase", phase), ("e.step", step)) if value is not None]
    if not tests:
        return "", ()
    return " WHERE " + " AND ".join(f"{name}=?" for name, _ in tests), tuple(value for _, value in tests)
