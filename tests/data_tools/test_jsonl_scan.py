"""What the byte scanner accepts, it reads as the JSON decoder does; what it does not know, it leaves alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools import jsonl
from data_tools.columns import Columns
from data_tools.conversation import ROLES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80) | st.text(
    'ab\\"/\n\t\u00e9\U0001f600', max_size=200
)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": TEXT})
ROW = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, min_size=1, max_size=3)},
    optional={"data_source": st.sampled_from(["wildchat", "tau_usi", ""])},
)


def decoded(data: bytes) -> Columns:
    lines = jsonl._decode_at_once(data)
    assert lines is not None
    return jsonl._columns(lines)


def assert_same(scanned: Columns, expected: Columns) -> None:
    assert list(scanned.contents) == list(expected.contents) and scanned.sources == expected.sources
    assert np.array_equal(scanned.roles, expected.roles) and np.array_equal(scanned.counts, expected.counts)


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(ROW, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, 1]), st.sampled_from(["\n", "\r\n"])
)
def test_it_reads_plain_rows_as_the_decoder_does(rows, ascii_only, spaces, end):
    separators = (",", ":") if spaces is None else (" , ", " : ")
    data = "".join(json.dumps(row, ensure_ascii=ascii_only, separators=separators) + end for row in rows).encode()
    scanned = jsonl._scan(data)
    assert scanned is not None
    assert_same(scanned, decoded(data))
    assert_same(jsonl._scan(data.rstrip()), decoded(data))  # no line end after the last row


@settings(deadline=None)  # the first call compiles
@given(st.lists(ROW, min_size=1, max_size=2), st.data())
def test_damaged_rows_are_left_to_the_decoder_or_read_as_it_does(rows, draw):
    data = bytearray("".join(json.dumps(row) + "\n" for row in rows).encode())
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(
        st.binary(max_size=3) | st.sampled_from([b"\\u", b'"', b"\n", b"}"])
    )
    scanned = jsonl._scan(bytes(data))
    if scanned is not None:
        assert_same(scanned, decoded(bytes(data)))


@pytest.mark.parametrize(
    "line",
    [
        '{"messages":[]}',
        '{"messages":null}',
        '{"data_source":"a"}',
        '{"id":"1","messages":[{"role":"user","content":"x"}]}',
        '{"messages":[{"role":"poet","content":"x"}]}',
        '{"messages":[{"role":"user","content":"x"}],"messages":[{"role":"user","content":"y"}]}',
        '{"messages":[{"role":"user"}]}',
        '{"messages":[{"role":"user","content":"\\ud800"}]}',
        '{"messages":[{"role":"user","content":"\\x"}]}',
        '{"messages":[{"role":"user","content":"a\tb"}]}',
        '{"messages":[{"role":"user","content":"x"},]}',
        '{"messages":[{"role":"user","content":"x"}]} {}',
        '{"messages":[{"role":"user","content":"x"}]',
        '{"messages":[{"role":"user","content":"x',
        "",
    ],
)
def test_anything_but_the_plainest_rows_is_left_alone(line):
    good = '{"messages":[{"role":"user","content":"x"}]}\n'
    assert jsonl._scan(good.encode()) is not None
    assert jsonl._scan(f"{good}{line}\n{good}".encode()) is None


def test_bytes_that_are_no_utf8_are_left_alone_even_where_two_messages_would_make_a_character():
    row = b'{"messages":[{"role":"user","content":"\xc3"},{"role":"user","content":"\xa9"}]}\n'
    assert jsonl._scan(row) is None
    assert jsonl._scan(b'{"data_source":"\xff","messages":[{"role":"user","content":"x"}]}\n') is None
