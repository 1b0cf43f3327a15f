"""Files that are either whole or absent: write to a temporary name, fsync, rename.

A reader never sees half a file; a killed writer leaves the earlier version untouched. Directories are made
visible the same way by `atomic_directory`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson
import xxhash

from common.errors import DataError, UsageError, data_errors

RESTORE = "restore the file from a copy, or remove it and run the command that writes it again"
REPAIR_LINE = "correct or remove that line"


def fsync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, atomically and durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by indented JSON with sorted keys (numpy scalars and arrays allowed)."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    write_bytes(path, orjson.dumps(value, option=options) + b"\n")


def read_tail(path: Path, max_bytes: int, *, start: int = 0) -> str:
    """The text at the end of a log, of what stands after byte `start`; bytes that are no UTF-8 are shown as such."""
    with path.open("rb") as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(start, size - max_bytes))
        return f.read().decode(errors="replace")


def read_json(path: Path, *, fix: str = RESTORE) -> Any:
    """Parse one JSON file. Raises DataError for one that is missing or no JSON."""
    with data_errors(str(path), fix=fix):
        data = path.read_bytes()
    with data_errors(str(path), fix=fix, what="not valid JSON"):
        return orjson.loads(data)


def read_json_object(path: Path, *, fix: str = RESTORE) -> dict[str, Any]:
    """`read_json` of a file that holds one object. Raises DataError."""
    value = read_json(path, fix=fix)
    if not isinstance(value, dict):
        raise DataError(f"a JSON {type(value).__name__}, not an object", where=str(path), fix=fix)
    return value


LOCK_TRIES, LOCK_WAIT_S = 5, 0.02
SEAL = "seal"
"""Key of a sealed JSON object's own hash."""


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """`write_json` with the hash of the content inside, which `read_sealed_json` checks."""
    plain = orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    write_json(path, {**plain, SEAL: hash_json(plain)})


def read_sealed_json(path: Path, *, fix: str = RESTORE) -> dict[str, Any]:
    """The object as written, without its seal (files without one are taken as is). Raises DataError."""
    value = read_json_object(path, fix=fix)
    seal = value.pop(SEAL, None)
    if seal is not None and seal != hash_json(value):
        raise DataError("its content is not what was written", where=str(path), fix=fix)
    return value


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record as one line in one write; safe for a single writer."""
    line = orjson.dumps(record, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
    with path.open("ab") as f:
        f.write(line)


def repair_jsonl_tail(path: Path) -> None:
    """Cut off the unfinished last line of a killed writer, so that the next append starts a line."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole != len(data):
        os.truncate(path, whole)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON-lines file; an unfinished last line (a killed writer) is left out.

    Raises DataError naming the first line that is no JSON object.
    """
    with path.open("rb") as f:
        for number, line in enumerate(f, start=1):
            if not line.endswith(b"\n"):
                return
            where = f"{path}, line {number}"
            with data_errors(where, fix=REPAIR_LINE, what="not JSON"):
                record = orjson.loads(line)
            if not isinstance(record, dict):
                raise DataError("not a JSON object", where=where, fix=REPAIR_LINE)
            yield record


@contextmanager
def exclusive(lock: Path, *, where: Path) -> Iterator[int]:
    """Hold an advisory lock that dies with the process. UsageError when another one works on `where`.

    Gives the lock's descriptor: a forked process closes its own, or the lock dies only with that process too.
    """
    with _opened_and_locked(lock, where) as f:
        f.truncate(0)
        f.write(str(os.getpid()))
        f.flush()
        yield f.fileno()


def _opened_and_locked(lock: Path, where: Path) -> IO[str]:
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            f = lock.open("a+")
        except FileNotFoundError:
            continue  # its owner is just removing the folder
        if not _locked(f):
            f.seek(0)
            owner = f.read().strip() or "unknown"
            f.close()
            raise UsageError(
                f"another run is using this {'folder' if where.is_dir() else 'output'} (process {owner})",
                where=str(where),
                fix="wait for it, stop it, or give another output folder",
            )
        if os.fstat(f.fileno()).st_nlink:
            return f
        f.close()  # its owner removed it before we had it: a lock that nobody else would see


def _locked(file: IO[str]) -> bool:
    """Take the lock. Who asks for the owner holds it for an instant, so one refusal is not believed."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOCK_WAIT_S)
        else:
            return True
    return False


@contextmanager
def atomic_directory(final: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary directory that becomes `final` by one rename if the body succeeds, and vanishes if not.

    An existing `final` is replaced only at the end, in two renames: a writer killed between them leaves it as
    .NAME.old, from where the next writer puts it back. One writer at a time.

    durable: on disk before it is visible. Without, a power cut may damage it: for what its reader checks and can make
    again.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    # Fixed names: what a killed writer left behind is found by the next one.
    temporary, old = (final.with_name(f".{final.name}.{suffix}") for suffix in ("tmp", "old"))
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if durable:
            _fsync_tree(temporary)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        temporary.rename(final)
        fsync_directory(final.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fsync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as f:
                os.fsync(f.fileno())
        fsync_directory(Path(root))


def hash_file(path: Path) -> str:
    """xxh3-128 of a file's bytes, as hex."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as f:
        while count := f.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """xxh3-128 of the canonical JSON of `value`: equal content, equal hash."""
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
