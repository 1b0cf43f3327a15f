"""Reading corpora: every format gives the same rows; what is broken is named or counted."""

from __future__ import annotations

import gzip
import itertools

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from data_tools import jsonl
from data_tools.conversation import Span
from data_tools.rows import find_files, read_batches, read_conversations
from tests.data_tools.conftest import make_rows, write_jsonl


def line(**fields) -> bytes:
    return orjson.dumps({"data_source": "tom_hitom", **fields}) + b"\n"


GOOD = line(messages=[{"role": "assistant", "content": "hi"}])


def test_all_formats_give_the_same_conversations(tmp_path):
    rows = make_rows(300)
    plain = write_jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=70)
    nested = [
        {"data_source": r["data_source"], "id": r["id"], "extra_info": {"messages": r["messages"]}} for r in rows
    ]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "b.parquet")
    write_jsonl(tmp_path / "b.jsonl", nested)
    expected = list(read_conversations([plain]))
    assert len(expected) == 300 and expected[0].id == "r0"
    for name in ("a.jsonl.gz", "a.jsonl.zst", "a.parquet", "b.parquet", "b.jsonl"):
        assert list(read_conversations([tmp_path / name])) == expected


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30), st.lists(st.integers(1, 2000), max_size=6), st.booleans()
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_byte_spans_that_tile_a_file_read_every_row_once(tmp_path, sizes, cuts, last_newline):
    data = b"".join(line(id=i, messages=[{"role": "user", "content": "x" * n}]) for i, n in enumerate(sizes))
    path = tmp_path / "t.jsonl"
    path.write_bytes(data if last_newline else data[:-1])
    size = path.stat().st_size
    edges = sorted({0, size, *(c for c in cuts if c < size)})
    seen = []
    for start, stop in itertools.pairwise(edges):
        span = Span(start, stop)
        assert jsonl.rows_before(path, span) == len(seen)
        for batch in read_batches(path, span):
            seen += [row.id for row in batch.rows]
    assert seen == [str(i) for i in range(len(sizes))]


@pytest.mark.parametrize(
    ("bad", "reason", "says"),
    [
        (b'{"messages": [{"role": "user", "content": "a\xff"}]}\n', "utf8", "UTF-8"),
        (b'{"messages": [\n', "json", "JSON"),
        (line(messages=[]), "empty", "no messages"),
        (line(), "empty", "no messages"),
        (line(messages=[{"role": "usr", "content": "a"}]), "schema", "usr"),
        (line(messages=[{"role": "user", "content": 3}]), "schema", "content"),
        (line(messages=[{"role": "user", "content": None}]), "schema", "content"),
        (line(messages=[{"role": "user"}]), "schema", "content"),
        (b"[1]\n", "schema", "array"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n', "json", "JSON"),
    ],
)
def test_a_bad_row_stops_with_file_and_row_or_is_counted(tmp_path, bad, reason, says):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD + GOOD + bad + GOOD)
    with pytest.raises(DataError, match=r"x\.jsonl, row 2 ") as error:
        list(read_batches(path))
    assert says in str(error.value)
    (batch,) = read_batches(path, on_bad_row="skip")
    assert [r.number for r in batch.rows] == [0, 1, 3]
    assert [(b.number, b.reason) for b in batch.bad] == [(2, reason)]


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n", b"\t\n"])
@pytest.mark.parametrize("first", [True, False])
def test_two_rows_in_one_line_are_one_bad_row_whatever_blank_lines_stand_beside_it(tmp_path, blank, first):
    row = line(messages=[{"role": "user", "content": "a"}])
    twice = row.rstrip(b"\n") * 2 + b"\n"
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join([blank, row, twice] if first else [row, twice, blank]))
    (batch,) = read_batches(path, on_bad_row="skip")
    assert (len(batch.columns), [b.reason for b in batch.bad]) == (1, ["json"])
    assert batch.positions.tolist() == [len(blank) if first else 0]


WHOLE_ROW = '{"messages": [{"role": "user", "content": "a"}]'
ODD = [
    *(f'{WHOLE_ROW}, "x": {value}}}' for value in (
        "NaN", "[ -Infinity]", "Inf", "1e999", "01", "tru", "[1,]", "[" * 5000 + "]" * 5000, '{"messages": 3}',
        '"\\ud800"', '"\\udc00"', '"\\q"', '"NaN"', '"a: NaN, Inf "', '"\t"', '"\x00"', "\x0c1", "\r1",
    )),
    *(f'{WHOLE_ROW}, "id": {value}}}' for value in (
        "3", "-0", "3.5", "1e3", "true", "null", "[1]", '"x"', "9223372036854775808",
    )),
    *(f'{WHOLE_ROW}, "data_source": {value}}}' for value in ("3", "null", '"s", "data_source": "t"', '"\udcff"')),
    *(f'{{"messages": [{{"role": "user", "content": {value}}}]}}' for value in (
        '"\\u0000"', '"\\ud83d\\ude00"', '"\\udc00"', '"\udcff"', '"a", "content": "b"', '"a", "x": {"role": 3}',
        "null",
    )),
    f'{WHOLE_ROW}, "\udcff": "\udcff"}}', f'{WHOLE_ROW}, "messages": null}}', f"{WHOLE_ROW},}}", f"{WHOLE_ROW}}}/**/",
    f"{WHOLE_ROW}}}{WHOLE_ROW}}}", f"{WHOLE_ROW}}}\0}}", f"{WHOLE_ROW}}}\r", f"{WHOLE_ROW}", '"x": 1}',
    "{}", "[]", "{", "}", "",
    '{"me\\u0073sages": [{"r\\u006fle": "us\\u0065r", "content": "a"}]}', '{"messages": {}}', '{"messages": [[]]}',
]  # fmt: skip
LINES = st.one_of(st.just(WHOLE_ROW + "}"), st.sampled_from(ODD), st.text('{}[]",:\\aN0\n \0é', max_size=6))


@given(st.lists(LINES, min_size=1, max_size=4), st.booleans())
@example([f'{WHOLE_ROW}, "x": [', "{}]}", f"{WHOLE_ROW}}}{WHOLE_ROW}}}"], True)
@settings(max_examples=300, deadline=None)
def test_a_block_read_at_once_gives_the_rows_that_its_lines_give(lines, last_newline):
    data = "\n".join(lines).encode(errors="surrogateescape") + b"\n" * last_newline
    block = jsonl._Block(7, data)
    found, expected = jsonl._BlockDecoder().decode(3, block, 9), jsonl._decode_one_by_one(3, block, 9)
    assert (found.rows, found.bad) == (expected.rows, expected.bad)


@pytest.mark.parametrize("one", ODD)
def test_an_odd_row_is_what_it_is_by_itself(one):
    test_a_block_read_at_once_gives_the_rows_that_its_lines_give.hypothesis.inner_test([one, WHOLE_ROW + "}"], True)


def test_plain_rows_are_read_at_once_whatever_their_ids_and_text():
    for ids in (["a", "b"], [1, 2], [None, "c"]):
        rows = [line(id=i, messages=[{"role": "user", "content": "NaN of Information: \n é {}"}]) for i in ids]
        assert jsonl._BlockDecoder().at_once(b"".join(rows)) is not None


def test_the_row_number_of_an_error_counts_from_the_start_of_the_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD * 5 + b"{\n" + GOOD)
    with pytest.raises(DataError, match="row 5 "):
        list(read_batches(path, Span(len(GOOD) * 3 - 5, None)))


def test_bad_parquet_rows_are_named_too(tmp_path):
    messages = [
        [{"role": "user", "content": "a"}],
        None,
        [],
        [{"role": "boss", "content": "a"}],
        [{"role": "user", "content": None}],
    ]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"messages": messages}), path, row_group_size=2)
    bad = [b for batch in read_batches(path, on_bad_row="skip") for b in batch.bad]
    assert [(b.number, b.reason) for b in bad] == [(1, "empty"), (2, "empty"), (3, "schema"), (4, "schema")]
    with pytest.raises(DataError, match=r"x\.parquet, row 1 "):
        list(read_batches(path))
    with pytest.raises(DataError, match="row 2 "):
        list(read_batches(path, Span(1, 3)))


def test_wrong_files_are_refused_in_one_line(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="columns are text"):
        list(read_batches(tmp_path / "x.parquet"))
    (tmp_path / "y.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match="not a readable parquet"):
        list(read_batches(tmp_path / "y.parquet"))
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(GOOD * 500)[:-20])
    with pytest.raises(DataError, match="damaged compressed"):
        list(read_batches(tmp_path / "z.jsonl.gz"))
    with pytest.raises(UsageError, match="no file matches"):
        find_files(str(tmp_path / "none*"))
    (tmp_path / "a.csv").touch()
    with pytest.raises(UsageError, match="unknown file type"):
        find_files(str(tmp_path / "*.csv"))


def test_long_rows_pass_and_longer_than_the_bound_are_bad(tmp_path, monkeypatch):
    path = tmp_path / "x.jsonl"
    path.write_bytes(GOOD + line(messages=[{"role": "assistant", "content": "y" * (1 << 20)}]) + GOOD)
    assert sum(len(b.rows) for b in read_batches(path)) == 3
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 1000)
    batches = list(read_batches(path, on_bad_row="skip"))
    assert [b.reason for batch in batches for b in batch.bad] == ["too_large"]
    assert [r.number for batch in batches for r in batch.rows] == [0, 2]
