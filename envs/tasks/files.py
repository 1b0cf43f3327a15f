"""Rows from a person's own copy of a benchmark: JSON, JSON lines or Parquet; nothing is downloaded or shipped.

OdysSim's Parquet rows hold a task's fields in `extra_info`, sometimes with a JSON text in `raw`; both are unfolded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from common.errors import DataError, UsageError, data_errors
from common.text import well_formed

SAFE_INTEGER = 2**63
RECORD_FIX = "repair the record, or give the published file"


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Every record of a file, or of all files of a folder in name order. Raises UsageError or DataError."""
    if path.is_dir():
        for file in sorted(p for p in path.iterdir() if p.suffix in READERS):
            yield from read_records(file)
        return
    if not path.is_file() or path.suffix not in READERS:
        raise UsageError(
            "no benchmark file here", where=str(path), fix=f"give a file or folder of {', '.join(sorted(READERS))}"
        )
    for number, record in enumerate(READERS[path.suffix](path), start=1):
        if not isinstance(record, dict):
            raise DataError("a record is no object", where=f"{path}, record {number}", fix="one object per record")
        yield unfold(record)


def loads(data: bytes) -> Any:
    """JSON; the NaN that pandas writes for an empty cell is read as null, half a character as U+FFFD.

    What comes back can be stored as JSON again: numbers beyond 64 bits are floats, those beyond a float null. Raises
    ValueError.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        pass
    try:
        value = json.loads(data, parse_constant=lambda name: None, parse_float=_number, parse_int=_number)
        return _storable(value)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _number(text: str) -> int | float | None:
    value = float(text)
    if not math.isfinite(value):
        return None
    whole = value.is_integer() and abs(value) < SAFE_INTEGER and text.lstrip("-").isdecimal()
    return int(text) if whole else value


def _storable(value: Any) -> Any:
    """Texts and keys well-formed."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): _storable(item) for key, item in value.items()}
    return value


def _jsonl(path: Path) -> Iterator[Any]:
    lines = _bytes(path).splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield loads(line)
            except ValueError as e:
                whole = _document(path) if number == 1 else None
                if whole is None:
                    raise DataError(f"not JSON: {e}", where=f"{path}, line {number}", fix="repair the file") from e
                yield whole
                return


def _bytes(path: Path) -> bytes:
    with data_errors(str(path), fix="check the file and its permissions"):
        return path.read_bytes()


def _document(path: Path) -> Any:
    """One JSON value written over several lines, as some published files named .jsonl are; None for anything else."""
    try:
        return loads(_bytes(path))
    except ValueError:
        return None


def _json(path: Path) -> Iterator[Any]:
    try:
        value = loads(_bytes(path))
    except ValueError:
        yield from _jsonl(path)
        return
    yield from value if isinstance(value, list) else [value]


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa  # heavy, and only for this format
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        raise DataError(f"not a readable parquet file: {e}", where=str(path), fix="fetch or write it again") from e


READERS = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}


def unfold(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with `extra_info` and `raw` merged in; what they say wins."""
    out = dict(record)
    for name in ("extra_info", "raw"):
        inner = out.pop(name, None)
        if isinstance(inner, str):
            try:
                inner = loads(inner.encode())
            except ValueError:
                out[name] = inner
                continue
        if isinstance(inner, Mapping):
            out.update(inner)
        elif inner is not None:
            out[name] = inner
    return out


def decoded(value: Any) -> Any:
    """A list or object, also when it is written as JSON text: OdysSim does so where files must share one schema."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return loads(value.encode())
        except ValueError:
            return value
    return value


def field(record: Mapping[str, Any], *names: str, where: str = "row") -> Any:
    """The first of `names` that the record has. Raises DataError."""
    for name in names:
        if record.get(name) is not None:
            return record[name]
    raise DataError(f"no field {' or '.join(names)}", where=where, fix=f"the record has {', '.join(sorted(record))}")


def prompt_text(record: Mapping[str, Any], *, where: str) -> str:
    """A record's prompt: `prompt_text`, or the first message of its conversations. Raises DataError."""
    with data_errors(where, fix=RECORD_FIX):
        messages = (m for talk in record.get("conversations") or () for m in talk.get("messages") or ())
        first = next((content for m in messages if (content := m.get("content"))), None)
    return str(record.get("prompt_text") or first or field(record, "prompt_text", where=where))


def texts(value: Any) -> list[str]:
    """A list of texts, also when it is written as JSON text or as a Python list literal of strings.

    Published files hold both. Nothing is evaluated: single-quoted lists are read by `_python_list`.
    """
    if isinstance(value, str):
        try:
            value = loads(value.encode())
        except ValueError:
            return _python_list(value)
    if isinstance(value, Mapping):
        value = value.get("text", list(value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(v["text"]) if isinstance(v, Mapping) and "text" in v else str(v) for v in value]
    return [str(value)]


def _python_list(text: str) -> list[str]:
    """Strings of a Python list literal, e.g. "['it''s', \\"b\\"]"; a text that is no list is one string."""
    import ast  # its parser only: literal_eval runs no code

    try:
        value = ast.literal_eval(text)
        return [well_formed(str(v)) for v in value] if isinstance(value, list | tuple) else [text]
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: its parser on deep nesting
        return [text]
