"""Tables, keys and connections of the ledger.

SQLite in WAL mode: a killed writer leaves whole transactions only; a torn tail of the write-ahead log is left out at
the next opening. Large values are zstd blobs named by the xxh3-128 of their content, which is checked at reading.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import xxhash
import zstandard

from common.errors import DataError, UsageError
from envs.types import Episode, Seat

LEDGER_FILE = "ledger.sqlite"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0
ZSTD_LEVEL = 1
MAX_BLOB_BYTES = 1 << 30
"""No part of an episode comes near it; a damaged blob that claims more is not believed."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE blobs (hash BLOB PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE episodes (
    id INTEGER PRIMARY KEY, phase TEXT NOT NULL, step INTEGER NOT NULL, prompt_id TEXT NOT NULL,
    sample INTEGER NOT NULL, task TEXT NOT NULL, seed INTEGER NOT NULL, scorer TEXT NOT NULL,
    stop TEXT NOT NULL, turns INTEGER NOT NULL, wall_s REAL NOT NULL,
    row BLOB NOT NULL, story BLOB NOT NULL, digest BLOB NOT NULL,
    UNIQUE (phase, step, prompt_id, sample));
CREATE TABLE seats (
    episode INTEGER NOT NULL REFERENCES episodes(id), position INTEGER NOT NULL, seat TEXT NOT NULL,
    learnable INTEGER NOT NULL, score REAL, format_error INTEGER, unscored TEXT, outcome TEXT,
    prompt_tokens INTEGER NOT NULL, sampled_tokens INTEGER NOT NULL, min_version INTEGER, max_version INTEGER,
    trace BLOB NOT NULL, PRIMARY KEY (episode, position)) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, episode INTEGER REFERENCES episodes(id), role TEXT NOT NULL, model TEXT NOT NULL,
    request BLOB NOT NULL, reply TEXT, error TEXT, cost_usd REAL NOT NULL, wall_s REAL NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached INTEGER NOT NULL);
CREATE INDEX calls_of_episode ON calls (episode);
CREATE TABLE consumed (
    step INTEGER NOT NULL, episode INTEGER NOT NULL REFERENCES episodes(id), seat TEXT NOT NULL,
    context TEXT NOT NULL, component TEXT NOT NULL, advantage REAL NOT NULL, weights BLOB,
    PRIMARY KEY (step, episode, seat, context, component)) WITHOUT ROWID;
CREATE INDEX consumers_of_episode ON consumed (episode);
"""


@dataclass(frozen=True, order=True)
class EpisodeKey:
    """Where an episode belongs: exactly one per key.

    phase: who played it ("rollout", "refined", "eval", …); step: the step of its rollout; sample: its place in the
    group of its prompt.
    """

    phase: str
    step: int
    prompt_id: str
    sample: int


@dataclass(frozen=True)
class Recorded:
    """An episode as the ledger has it."""

    key: EpisodeKey
    episode: Episode


@dataclass(frozen=True)
class Consumed:
    """One training use of a seat's sampled tokens.

    step: the train step that used it. context: "plain" or "feedback", the prompt it was scored under. component:
    the loss component. advantage: the group's verdict on it. weights: per-token weights (float64), if not uniform.
    """

    step: int
    key: EpisodeKey
    seat: Seat
    context: str
    component: str
    advantage: float
    weights: tuple[float, ...] | None = None


def blob_hash(data: bytes) -> bytes:
    """16 bytes."""
    return xxhash.xxh3_128_digest(data)


def episode_digest(seed: int, outcomes: Iterable[str], traces: Iterable[bytes]) -> bytes:
    """What tells two plays under one key apart: seed, encoded outcomes and traces, both in the order of the seats."""
    return blob_hash(orjson.dumps([seed, *outcomes]) + b"".join(traces))


def expand(name: bytes, data: bytes) -> bytes:
    """The blob's content, checked against its name. Raises DataError."""
    try:
        if not 0 <= zstandard.frame_content_size(data) <= MAX_BLOB_BYTES:
            raise zstandard.ZstdError("it claims no or too large a content")
        raw = zstandard.ZstdDecompressor().decompress(data)
    except (zstandard.ZstdError, MemoryError, TypeError) as e:
        raise DataError(f"blob {name.hex()} is damaged: {e}", where="ledger", fix=DAMAGED_FIX) from e
    if blob_hash(raw) != name:
        raise DataError(f"blob {name.hex()} does not have its own content", where="ledger", fix=DAMAGED_FIX)
    return raw


DAMAGED_FIX = "restore the ledger from a copy, or move it away and run again: finished work is then repeated"


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """SQLite's errors as DataError with a place and a fix."""
    try:
        yield
    except sqlite3.OperationalError as e:
        raise DataError(str(e), where=str(path), fix="check disk space and permissions of the run folder") from e
    except sqlite3.DatabaseError as e:
        raise DataError(f"not a readable ledger: {e}", where=str(path), fix=DAMAGED_FIX) from e


class LedgerNotStarted(UsageError):
    """The file is there and its writer has not made the tables yet: ask again later."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """A connection to an existing or (for the writer) new ledger of this schema.

    Raises DataError, and LedgerNotStarted for a reader that comes before the writer made the tables.
    """
    with sqlite_errors(path):
        target = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(target, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, read_only=read_only)
        except BaseException:
            db.close()
            raise
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, read_only: bool) -> None:
    if not read_only:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
        if read_only:
            raise LedgerNotStarted("not started yet", where=str(path), fix="try again when the run has begun to play")
        db.executescript(f"BEGIN IMMEDIATE; {TABLES} INSERT INTO meta VALUES ('schema', '{SCHEMA_VERSION}'); COMMIT;")
    found = db.execute("SELECT value FROM meta WHERE key='schema'").fetchone()
    if found is None or found[0] != str(SCHEMA_VERSION):
        raise DataError(
            f"ledger schema {found and found[0]}, this version reads {SCHEMA_VERSION}",
            where=str(path),
            fix="read it with the version of osim that wrote it (manifest.json names the commit)",
        )
