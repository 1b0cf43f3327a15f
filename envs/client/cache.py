"""Recorded replies, by the content of the request.

live: not used. record: every request is sent and its reply stored (an older one is replaced). replay: stored replies
are used, the rest is sent and stored. replay-strict: stored replies only; a missing one is a failure, never a call.
Only whole completions are stored; failures never are. SQLite in WAL mode: several processes may share a file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from common.errors import DataError, UsageError
from common.files import SEAL, hash_json
from envs.client.config import CacheMode

BUSY_TIMEOUT_S = 30.0
DAMAGED_FIX = "move the file (and its -wal and -shm) away: what it recorded is then asked again"


@dataclass(frozen=True)
class Completion:
    """What an endpoint answered. Token counts are the endpoint's own (0 where it gives none)."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


_COMPLETION = TypeAdapter(Completion)


class Cache:
    """One cache file in one mode."""

    def __init__(self, mode: CacheMode, path: Path | None) -> None:
        self.mode, self.path = mode, path
        self._db: sqlite3.Connection | None = None
        if mode == "live":
            return
        if path is None:
            raise UsageError(
                f"cache mode {mode!r} needs a file", where="client.cache_file", fix="set client.cache_file"
            )
        if mode == "replay-strict" and not path.is_file():
            raise UsageError(
                "no recorded replies here", where=str(path), fix="record them first: client.cache=record"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply BLOB NOT NULL)")

    @staticmethod
    def key(request: Mapping[str, Any]) -> str:
        """Hash of everything that is sent (the request holds no key and no address)."""
        return hash_json(request)

    def get(self, key: str) -> Completion | None:
        """The stored reply, if this mode uses stored replies."""
        if self._db is None or self.mode == "record":
            return None
        with self._errors():
            row = self._db.execute("SELECT reply FROM replies WHERE key=?", (key,)).fetchone()
            return None if row is None else self._decoded(key, row[0])

    def put(self, key: str, completion: Completion) -> None:
        """Store a reply, if this mode stores."""
        if self._db is not None and self.mode != "replay-strict":
            fields = asdict(completion)
            with self._errors():
                reply = orjson.dumps({**fields, SEAL: hash_json([key, fields])})
                self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, reply))

    def _decoded(self, key: str, reply: bytes) -> Completion:
        """Checked against its hash; replies of earlier versions have none."""
        fields = orjson.loads(reply)
        seal = fields.pop(SEAL, None) if isinstance(fields, dict) else None
        if seal not in (None, hash_json([key, fields])):
            raise ValueError("a reply is not what was stored")
        return _COMPLETION.validate_python(fields)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """A damaged file, or one that cannot be written, as DataError."""
        try:
            yield
        except sqlite3.OperationalError as e:
            fix = "check disk space and permissions of its folder"
            raise DataError(f"recorded replies: {e}", where=str(self.path), fix=fix) from e
        except (sqlite3.Error, ValueError) as e:
            raise DataError(f"not a readable reply cache: {e}", where=str(self.path), fix=DAMAGED_FIX) from e

    @property
    def strict(self) -> bool:
        return self.mode == "replay-strict"

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
