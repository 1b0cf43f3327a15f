"""Benchmark files, golden rows, the ledger, recorded replies, and the HTTP answers of model endpoints."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import pkgutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import xxhash
import zstandard
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

import envs.tasks
from common import bounded_http
from common.errors import DataError, OsimError
from envs import golden, registry
from envs.client.cache import Cache, Completion
from envs.client.config import Endpoint, resolve
from envs.client.retry import Failure, parse_retry_after
from envs.client.transport import Transport
from envs.ledger import LEDGER_FILE, EpisodeKey, Ledger, LedgerReader
from envs.ledger.codec import decode_trace, encode_row, encode_trace
from envs.ledger.schema import blob_hash, expand
from envs.types import Episode, JudgeCall, Message, Row, Say, Score, SeatTrace, Segment
from tests.fuzz.harness import files, fuzz, garbage, memory_limit, mutated, survives, texts, to_json
from tests.loopback import listening


def records_of(package: str) -> list[Mapping[str, Any]]:
    """The invented records of a task, from the constants of its package."""
    found: list[Mapping[str, Any]] = []
    folder = importlib.import_module(package)
    names = [m.name for m in pkgutil.iter_modules(folder.__path__)] if hasattr(folder, "__path__") else []
    for module in [folder, *(importlib.import_module(f"{package}.{name}") for name in names)]:
        for value in vars(module).values():
            if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
                found += value
    return [r for r in found if json_able(r)]


def json_able(record: Mapping[str, Any]) -> bool:
    try:
        json.dumps(record)
    except (TypeError, ValueError):
        return False
    return True


PACKAGES = sorted(f"envs.tasks.{m.name}" for m in pkgutil.iter_modules(envs.tasks.__path__) if m.ispkg)
READERS = [name for name in registry.names() if registry.get(name).read is not None]
RECORDS = {package: records for package in PACKAGES if (records := records_of(package))}


def package_of(name: str) -> str:
    """Where a task's records are: the package with the longest common beginning."""
    return max(RECORDS, key=lambda p: (len(set(name.split("_")) & set(p.rpartition(".")[2].split("_"))), p))


@pytest.mark.parametrize("name", READERS)
@fuzz(8)
@given(data=st.data())
def test_any_benchmark_file_gives_rows_that_can_be_stored_or_is_refused(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    spec = registry.get(name)
    records = RECORDS[package_of(name)][:3]
    suffix = data.draw(st.sampled_from((".jsonl", ".json")))
    path = tmp_path / f"rows{suffix}"
    valid = b"\n".join(to_json(r) for r in records) if suffix == ".jsonl" else to_json(list(records))
    path.write_bytes(data.draw(files(valid)))

    def use() -> None:
        bound = registry.with_data(spec, path)
        for row in bound.rows("test", None, 0):
            encode_row(row)
            assert row.sha
            row.prompt_id.encode()

    survives(use)


@fuzz(60)
@given(data=files(b'{"kind": "mc", "response": "a", "correct_answer": "a", "author": true}\n'
                  b'{"kind": "pass_hat_k", "n": 4, "c": 2, "k": 1, "author": 0.5}\n'))  # fmt: skip
def test_any_golden_file_is_compared_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "golden.jsonl").write_bytes(data)
    survives(lambda: golden.compare(golden.read(tmp_path / "golden.jsonl")))


EPISODE = Episode(
    row=Row("task", "1", "c", {"x": 1}),
    seed=1,
    says=(Say("a", "hello"),),
    views={"a": (Message("user", "hi"), Message("assistant", "hello"))},
    traces={"a": SeatTrace("a", True, (Segment((1, 2), False, 0), Segment((3, 4), True, 0, (-0.5, -0.1), 0)))},
    outcomes={"a": Score(0.5, {"p": 1.0})},
    judge_calls=(JudgeCall("judge", "m", {"messages": []}, "{}", None, 0.1, 0.2),),
    opening={"a": 1},
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger(folder) as writer:
        for sample in range(3):
            writer.put_episode(EpisodeKey("rl", 0, "task/1", sample), EPISODE)
    db = sqlite3.connect(folder / LEDGER_FILE)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return (folder / LEDGER_FILE).read_bytes()


def read_all(folder: Path) -> None:
    with LedgerReader(folder) as reader:
        reader.keys()
        for recorded in reader.episodes():
            assert recorded.episode.row.task
        reader.consumed()
        reader.costs()
        reader.loose_calls()
        reader.outcome_counts()
        reader.verify()


@fuzz(40)
@given(data=st.data())
def test_any_ledger_is_read_or_damaged(data: st.DataObject, ledger: bytes, tmp_path: Path) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    (tmp_path / LEDGER_FILE).write_bytes(data.draw(mutated(ledger, most=4) | garbage()))
    if data.draw(st.booleans()):
        (tmp_path / f"{LEDGER_FILE}-wal").write_bytes(data.draw(st.binary(max_size=80)))
    survives(lambda: read_all(tmp_path))


VALUES = st.sampled_from((None, "", "x", -1, 2**62, 1.5, b"", b"\xff", "\x00", "{}", "[]", '{"score": 1}', "NaN"))
COLUMNS = ("episodes.story", "episodes.row", "episodes.step", "episodes.turns", "seats.outcome", "seats.trace",
           "seats.seat", "calls.request", "calls.cached", "calls.cost_usd", "meta.value", "blobs.data")  # fmt: skip


@fuzz(40)
@given(column=st.sampled_from(COLUMNS), value=VALUES)
@example(column="seats.outcome", value=b"")
def test_any_value_in_any_column_is_read_or_damaged(column: str, value: Any, ledger: bytes, tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_bytes(ledger)
    table, name = column.split(".")
    db = sqlite3.connect(tmp_path / LEDGER_FILE)
    try:
        with db:
            db.execute(f"UPDATE {table} SET {name}=?", (value,))
    except sqlite3.IntegrityError:
        return  # the tables do not hold it
    finally:
        db.close()
    survives(lambda: read_all(tmp_path))


@fuzz(60)
@given(data=mutated(encode_trace(EPISODE.traces["a"])))
def test_bytes_of_a_trace_under_their_own_name_are_a_trace_or_damage(data: bytes) -> None:
    try:
        trace = decode_trace(data)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        return  # the reader makes a DataError of these
    assert len(trace.ids) == len(trace.logprobs)


def test_a_blob_that_claims_a_terabyte_allocates_nothing() -> None:
    frame = b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"
    assert zstandard.frame_content_size(frame) == 2**40
    with memory_limit(128 << 20), pytest.raises(DataError, match="damaged"):
        expand(xxhash.xxh3_128_digest(b""), frame)
    assert expand(blob_hash(b"x"), zstandard.compress(b"x")) == b"x"


@fuzz(40)
@given(reply=files(b'{"text": "a", "finish": "stop", "prompt_tokens": 1, "completion_tokens": 2}'))
def test_any_recorded_reply_is_a_completion_or_damage(reply: bytes, tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    cache = Cache("replay", path)
    cache.put("k", Completion("a", "stop", 1, 2))
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE replies SET reply=?", (reply,))
    db.close()
    found = survives(lambda: cache.get("k"))
    assert isinstance(found, Completion | OsimError)
    cache.close()


@fuzz(60)
@given(data=mutated(b"SQLite format 3\x00" + bytes(100)) | garbage())
def test_any_file_in_the_place_of_recorded_replies_is_refused_or_new(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    path.write_bytes(data)
    survives(lambda: Cache("replay", path).get("k"))


COMPLETION = {
    "choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}
BODIES: list[tuple[bytes, dict[str, str]]] = [
    (b"", {}),
    (b"\xff\xfe", {}),
    (b"[]", {}),
    (to_json({**COMPLETION, "usage": {"prompt_tokens": 10**30, "completion_tokens": -1}}), {}),
    (b'{"choices": [{"message": {"content": "\\ud800"}}]}', {}),
    (b'{"choices": [{"message": {"content": null}}]}', {}),
    (b'{"choices": ' + b"[" * 5000, {}),
    (gzip.compress(b" " * (96 << 20) + to_json(COMPLETION)), {"Content-Encoding": "gzip"}),
    (b"not gzip", {"Content-Encoding": "gzip"}),
    (b"x", {"Content-Encoding": "zstd"}),
    (to_json(COMPLETION), {"Content-Encoding": "br"}),
    (b"<html>", {"Content-Type": "text/html"}),
]


def test_any_body_of_an_endpoint_is_an_answer_or_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "MAX_BODY_BYTES", 1 << 20)
    queue: list[tuple[bytes, dict[str, str], int]] = []

    async def answer(request: web.Request) -> web.Response:
        body, headers, status = queue[0]
        return web.Response(body=body, headers=headers, status=status)

    async def talk() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        async with listening(app) as address:
            await send(f"{address}/v1")

    async def send(base_url: str) -> None:
        endpoint = Endpoint(model="m", base_url=base_url)
        transport = Transport(endpoint, resolve(endpoint, {}))
        request = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

        async def asked(body: bytes, headers: dict[str, str], status: int = 200) -> Completion | Failure:
            queue[:] = [(body, headers, status)]
            return await transport.send(request, {})

        try:
            good = await asked(to_json(COMPLETION), {})
            assert good == Completion("hello", "stop", 3, 2)
            for body, headers in BODIES:
                for status in (200, 500):
                    assert isinstance(await asked(body, headers, status), Failure), (body[:40], headers)
            assert isinstance(await asked(b" " * (2 << 20) + to_json(COMPLETION), {}), Failure)
            retry = await asked(b"{}", {"Retry-After": "Inf"}, 429)
            assert isinstance(retry, Failure) and retry.kind == "rate_limit"
        finally:
            await transport.close()

    with memory_limit():
        asyncio.run(talk())


@fuzz(80)
@given(value=texts | st.sampled_from(("nan", "inf", "-1", "1e400", "Thu, 99 Jan 9999 99:99:99 GMT", "0 0 0", "Mon")))
def test_any_retry_after_is_a_wait_or_none(value: str) -> None:
    found = parse_retry_after(value, 0.0)
    assert found is None or found >= 0
