"""What every fuzz test shares: hostile values, mutations of valid files, and what surviving them means.

A reader survives an input when it returns, or raises an OsimError whose text can be printed. Anything else (another
exception, memory beyond what the input is worth, a hang) is a bug.
"""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from common.errors import OsimError

T = TypeVar("T")
QUIET = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
]
QUIET.append(HealthCheck.function_scoped_fixture)
SPARE_MEMORY = 768 << 20
"""What a reader of a file of a few kilobytes may take beside what the process has."""
CPU_S = 60
"""Processor time after which a reader hangs: a thousand times what any of them needs."""


def fuzz(examples: int) -> settings:
    """As many examples in CI, always the same; those of the profile otherwise."""
    if settings.get_current_profile_name() == "long":
        return settings(deadline=None, suppress_health_check=QUIET)
    return settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=QUIET
    )


def survives(call: Callable[[], T]) -> T | OsimError:
    """The result, or the typed error. Anything else fails the test."""
    with cpu_limit():
        try:
            return call()
        except OsimError as e:
            str(e).encode()
            return e


@contextmanager
def cpu_limit(seconds: float = CPU_S) -> Iterator[None]:
    """TimeoutError after so much processor time of this process (not of the clock: the machine may be busy)."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s of processor time")

    old = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)


@contextmanager
def memory_limit(spare: int = SPARE_MEMORY) -> Iterator[None]:
    """This process may map so much more than it has: an allocation by a length that lies is a MemoryError."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (own + spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


HOSTILE_TEXTS = (
    "",
    "\x00",
    "\x1b]0;title\x07\x1b[2J",
    "\ud800",
    "a\udfffb",
    "\ufeff",
    "‮drow",
    "é" * 300,
    "x" * 20_000,
    "[" * 3000,
    '{"a":' * 3000,
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "../../etc/passwd",
    "/dev/zero",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "${HOME}",
    "%s%n",
    "'; DROP TABLE episodes; --",
)
HOSTILE_NUMBERS = (
    0,
    -1,
    2**31,
    2**32 - 1,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    5e-324,
)


def deep(levels: int = 3000) -> Any:
    """A list in a list in a list …"""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


texts = st.sampled_from(HOSTILE_TEXTS) | st.text(max_size=40)
scalars = st.none() | st.booleans() | st.sampled_from(HOSTILE_NUMBERS) | st.integers() | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)


def to_json(value: Any) -> bytes:
    """JSON as a careless writer makes it: NaN, half characters, integers of any size, any depth."""
    pieces: list[str] = []
    _write(value, pieces)
    return "".join(pieces).encode("utf-8", "surrogatepass")


def _write(value: Any, out: list[str]) -> None:
    """Iterative, so that nothing is too deep to be written."""
    work: list[Any] = [value]
    while work:
        one = work.pop()
        if isinstance(one, _Raw):
            out.append(one.text)
        elif isinstance(one, list | tuple):
            work.append(_Raw("]"))
            for number, item in reversed(list(enumerate(one))):
                work += [item, _Raw("," if number else "")]
            work.append(_Raw("["))
        elif isinstance(one, Mapping):
            work.append(_Raw("}"))
            for number, (key, item) in reversed(list(enumerate(one.items()))):
                work += [item, _Raw(("," if number else "") + json.dumps(str(key)) + ":")]
            work.append(_Raw("{"))
        elif isinstance(one, int) and not isinstance(one, bool):
            out.append(_digits(one))
        else:
            out.append(json.dumps(one))


def _digits(value: int) -> str:
    return json.dumps(value) if abs(value) < 10**4000 else "9" * 5000


class _Raw:
    def __init__(self, text: str) -> None:
        self.text = text


@st.composite
def changed(draw: st.DrawFn, value: Any, *, most: int = 3) -> Any:
    """A JSON value with one to `most` of its places replaced, removed, added or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, most))):
        value = _changed_once(draw, value)
    return value


def _changed_once(draw: st.DrawFn, value: Any) -> Any:
    places = list(_places(value))
    if not places:
        return draw(values)
    container, key = draw(st.sampled_from(places))
    action = draw(st.sampled_from(("replace", "replace", "replace", "remove", "add", "double", "deep")))
    if action == "remove":
        del container[key]
    elif action == "replace":
        container[key] = draw(values)
    elif action == "deep":
        container[key] = deep()
    elif action == "double":
        container[key] = [container[key], container[key]]
    elif isinstance(container, dict):
        container[draw(texts)] = draw(values)
    else:
        container.append(draw(values))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    stack = [value]
    while stack:
        one = stack.pop()
        items = list(one.items() if isinstance(one, dict) else enumerate(one)) if isinstance(one, dict | list) else []
        for key, child in items:
            yield one, key
            stack.append(child)


INSERTED = (b"\x00", b"\xff", b"\n", b"\r\n", b'"', b"{", b"]", b",", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"1e999")
LENGTHS = tuple(
    n.to_bytes(8, "little") for n in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1)
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes, *, most: int = 3) -> bytes:
    """Bytes with a few mutations: flips, cuts, insertions, doubled or removed parts, lengths that lie."""
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        action = draw(st.sampled_from(("flip", "cut", "insert", "double", "remove", "length", "zeros", "tail")))
        if action == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif action == "cut":
            data = data[:at]
        elif action == "insert":
            data = data[:at] + draw(st.sampled_from(INSERTED)) + data[at:]
        elif action == "double":
            data = data[:at] + data[at : at + 64] + data[at:]
        elif action == "remove":
            data = data[:at] + data[at + draw(st.integers(1, 64)) :]
        elif action == "length":
            data = data[:at] + draw(st.sampled_from(LENGTHS)) + data[at + 8 :]
        elif action == "zeros":
            data = data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :]
        else:
            data += draw(st.binary(max_size=40))
    return data


def garbage() -> st.SearchStrategy[bytes]:
    """Bytes that were never a valid file: random ones, JSON of any value, and hostile texts."""
    return (
        st.binary(max_size=200)
        | values.map(to_json)
        | st.sampled_from(HOSTILE_TEXTS).map(lambda t: t.encode("utf-8", "surrogatepass"))
        | st.just(to_json(deep()))
    )


def files(valid: bytes) -> st.SearchStrategy[bytes]:
    """Mutations of a valid file, JSON lines changed in their structure where it is one, and garbage."""
    strategies = [mutated(valid), mutated(valid), garbage()]
    try:
        records = [json.loads(line) for line in valid.splitlines()]
    except ValueError:
        records = []
    if records:
        strategies += [_lines(records), _lines(records)]
    else:
        with suppress(ValueError):
            strategies += [changed(json.loads(valid)).map(to_json)] * 2
    return st.one_of(strategies)


@st.composite
def _lines(draw: st.DrawFn, records: list[Any]) -> bytes:
    at = draw(st.integers(0, len(records) - 1))
    lines = [to_json(r) for r in records]
    lines[at] = to_json(draw(changed(records[at])))
    return b"\n".join(lines) + draw(st.sampled_from((b"\n", b"", b"\r\n", b"\n\n")))
