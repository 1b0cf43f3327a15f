"""Plain JSONL rows to flat arrays in one pass over the bytes: no Python object per message.

It knows rows of `messages` (role, content) and `data_source` only, in any order. Of anything else (other keys, a
blank line, bad JSON, an unknown role) it says nothing but "not mine": the reader then decodes the block with msgspec.
So it may be narrow, but what it accepts it must read as msgspec would (tests/data_tools/test_jsonl_scan.py).
It does not check that bytes above 127 are UTF-8: whoever makes strings of them does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from data_tools.conversation import ROLES

MIN_MESSAGE_BYTES = len('{"role":"tool","content":""}')
"""No message is shorter, so that the arrays can be made before the pass."""
BLOCK = 32
"""Bytes that are looked at together inside strings (one vector register)."""
_NOT_MINE = -1

_ORDINARY, _QUOTE, _BACKSLASH, _CONTROL = 0, 1, 2, 3
_KIND = np.full(256, _ORDINARY, np.uint8)
_KIND[:32] = _CONTROL
_KIND[ord('"')], _KIND[ord("\\")] = _QUOTE, _BACKSLASH
_ESCAPED = np.zeros(256, np.uint8)
for _letter, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _meaning
_HEX = np.full(256, -1, np.int32)
for _digit in range(16):
    _HEX[ord(f"{_digit:x}")] = _HEX[ord(f"{_digit:X}")] = _digit

_ROLE_BYTES = np.zeros((len(ROLES), 16), np.uint8)
_ROLE_LENGTHS = np.array([len(role) for role in ROLES])
for _code, _text in enumerate(ROLES):
    _ROLE_BYTES[_code, : len(_text)] = np.frombuffer(_text.encode(), np.uint8)
_SOURCE_KEY = np.frombuffer(b"data_source", np.uint8)
_MESSAGES_KEY = np.frombuffer(b"messages", np.uint8)
_ROLE_KEY = np.frombuffer(b"role", np.uint8)
_CONTENT_KEY = np.frombuffer(b"content", np.uint8)


@dataclass(frozen=True)
class ScannedRows:
    """R rows with M messages."""

    text: NDArray[np.uint8]
    """All contents back to back, escapes undone."""
    offsets: NDArray[np.int64]
    """int64[M + 1], where each content starts in `text`."""
    roles: NDArray[np.uint8]
    """uint8[M], index into ROLES."""
    counts: NDArray[np.int64]
    """int64[R], messages per row."""
    sources: list[str]
    """R; empty where a row names none."""


def scan_rows(data: bytes) -> ScannedRows | None:
    """The rows of a block of whole lines, or None where it holds anything but the plainest rows.

    Raises UnicodeDecodeError where the name of a source is not UTF-8.
    """
    block = np.frombuffer(data, np.uint8)
    most = len(data) // MIN_MESSAGE_BYTES + 1
    text, offsets = np.empty(len(data), np.uint8), np.empty(most + 1, np.int64)
    roles, counts = np.empty(most, np.uint8), np.empty(most, np.int64)
    source_of, spans = np.empty(most, np.int32), np.empty((most, 2), np.int64)
    rows, messages, sources = _scan(block, text, offsets, roles, counts, source_of, spans)
    if rows == _NOT_MINE:
        return None
    names = [data[start:stop].decode() for start, stop in spans[:sources].tolist()]
    return ScannedRows(
        text[: offsets[messages]],
        offsets[: messages + 1],
        roles[:messages],
        counts[:rows],
        [names[i] for i in source_of[:rows].tolist()],
    )


@njit(cache=True)
def _scan(data, text, offsets, roles, counts, source_of, spans):
    """(rows, messages, runs of sources), or _NOT_MINE first. A source that equals the last one shares its run."""
    size = len(data)
    at = rows = messages = sources = 0
    offsets[0] = 0
    while at < size:
        first = messages
        start = stop = 0  # of the source's name
        has_source = False
        at = _expect(data, at, ord("{"))
        while at >= 0:
            name, name_stop = _name(data, at)
            at = _expect(data, name_stop, ord(":"))
            if at < 0:
                break
            if messages == first and _equal(data, name, name_stop - 1, _MESSAGES_KEY):
                at, messages = _messages(data, at, text, offsets, roles, messages)
            elif not has_source and _equal(data, name, name_stop - 1, _SOURCE_KEY):
                start, at = _name(data, at)
                stop = at - 1
                has_source = True
            else:
                return _NOT_MINE, 0, 0
            at, more = _separator(data, at, ord("}"))
            if not more:
                break
        if at < 0 or messages == first:
            return _NOT_MINE, 0, 0
        while at < size and (data[at] == ord(" ") or data[at] == ord("\r") or data[at] == ord("\t")):
            at += 1
        if at < size:
            if data[at] != ord("\n"):
                return _NOT_MINE, 0, 0
            at += 1
        if not sources or not _equal(data, start, stop, data[spans[sources - 1, 0] : spans[sources - 1, 1]]):
            spans[sources, 0], spans[sources, 1] = start, stop
            sources += 1
        source_of[rows] = sources - 1
        counts[rows] = messages - first
        rows += 1
    return rows, messages, sources


@njit(cache=True)
def _messages(data, at, text, offsets, roles, messages):
    """A list of messages from `at`: (position after it or -1, number of messages so far)."""
    at = _expect(data, at, ord("["))
    more = at >= 0
    while more:
        at = _expect(data, at, ord("{"))
        role = end = -1
        more = at >= 0
        while more:
            name, name_stop = _name(data, at)
            at = _expect(data, name_stop, ord(":"))
            if at < 0:
                return -1, messages
            if role < 0 and _equal(data, name, name_stop - 1, _ROLE_KEY):
                start, at = _name(data, at)
                role = _role(data, start, at - 1)
                if role < 0:
                    return -1, messages
            elif end < 0 and _equal(data, name, name_stop - 1, _CONTENT_KEY):
                at = _expect(data, at, ord('"'))
                at, end = _string(data, at, text, offsets[messages])
            else:
                return -1, messages
            at, more = _separator(data, at, ord("}"))
        if at < 0 or role < 0 or end < 0:
            return -1, messages
        roles[messages] = role
        messages += 1
        offsets[messages] = end
        at, more = _separator(data, at, ord("]"))
    return at, messages


@njit(cache=True, inline="always")
def _skip_space(data, at):
    # Not the line end: a row is one line.
    while at < len(data) and (data[at] == ord(" ") or data[at] == ord("\t") or data[at] == ord("\r")):
        at += 1
    return at


@njit(cache=True, inline="always")
def _expect(data, at, byte):
    """The position after this byte (white space may precede it), or -1. A position of -1 stays what it is."""
    if at < 0:
        return -1
    at = _skip_space(data, at)
    return at + 1 if at < len(data) and data[at] == byte else -1


@njit(cache=True)
def _separator(data, at, closing):
    """After a value: (position after the comma or the closing byte or -1, is it a comma?)."""
    if at < 0:
        return -1, False
    at = _skip_space(data, at)
    if at < len(data) and data[at] == ord(","):
        return at + 1, True
    return (at + 1 if at < len(data) and data[at] == closing else -1), False


@njit(cache=True)
def _name(data, at):
    """A string without escapes: (its first byte, position after its closing quote); -1 where it is none."""
    start = at = _expect(data, at, ord('"'))
    while 0 <= at < len(data) and _KIND[data[at]] == _ORDINARY:
        at += 1
    return (start, at + 1) if 0 <= at < len(data) and data[at] == ord('"') else (-1, -1)


@njit(cache=True)
def _equal(data, start, stop, wanted):
    if stop - start != len(wanted):
        return False
    for i in range(len(wanted)):  # noqa: SIM110
        if data[start + i] != wanted[i]:
            return False
    return True


@njit(cache=True)
def _role(data, start, stop):
    for code in range(len(_ROLE_LENGTHS)):
        if _equal(data, start, stop, _ROLE_BYTES[code, : _ROLE_LENGTHS[code]]):
            return code
    return -1


@intrinsic
def _copy_ordinary(typing_context, data, at, text, out):
    """Copy BLOCK bytes at once; how many of them come before the first quote, backslash or control character."""

    def build(context, builder, signature, arguments):
        vector = ir.VectorType(ir.IntType(8), BLOCK)

        def block_at(array, index):
            start = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(start, [arguments[index]]), vector.as_pointer())

        block = builder.load(block_at(0, 1), align=1)
        builder.store(block, block_at(2, 3), align=1)
        special = builder.icmp_unsigned("<", block, vector([32] * BLOCK))
        for byte in b'"\\':
            special = builder.or_(special, builder.icmp_unsigned("==", block, vector([byte] * BLOCK)))
        bits = builder.bitcast(special, ir.IntType(BLOCK))
        return builder.zext(builder.cttz(bits, ir.IntType(1)(0)), ir.IntType(64))

    return types.int64(data, types.int64, text, types.int64), build


@njit(cache=True)
def _string(data, at, text, out):
    """Copy a string whose first byte is at `at`: (position after its closing quote or -1, end in `text`)."""
    if at < 0:
        return -1, -1
    size = len(data)
    while at < size:
        if at + BLOCK + 1 < size:
            copied: int = _copy_ordinary(data, at, text, out)  # type: ignore[call-arg]
            at += copied
            out += copied
            # Where runs end and escapes come cannot be predicted: one branch, hardly ever taken, for both.
            byte = data[at]
            escaped = byte == ord("\\")
            meaning = _ESCAPED[data[at + 1]] if escaped else byte
            if meaning and (escaped or _KIND[byte] == _ORDINARY):
                text[out] = meaning
                out += 1
                at += 2 if escaped else 1
                continue
        byte = data[at]
        kind = _KIND[byte]
        if kind == _ORDINARY:
            text[out] = byte
            out += 1
            at += 1
        elif kind == _QUOTE:
            return at + 1, out
        elif kind == _CONTROL or at + 1 >= size:
            break
        elif data[at + 1] == ord("u"):
            at, out = _unicode_escape(data, at, text, out)
            if at < 0:
                break
        else:
            meaning = _ESCAPED[data[at + 1]]
            if not meaning:
                break
            text[out] = meaning
            out += 1
            at += 2
    return -1, -1


@njit(cache=True)
def _unicode_escape(data, at, text, out):
    r"""A \uXXXX (or a pair of them for one character) as UTF-8: (position after it or -1, end in `text`)."""
    code = _hex4(data, at + 2)
    at += 6
    if 0xD800 <= code < 0xDC00:
        low = _hex4(data, at + 2) if at + 1 < len(data) and data[at] == ord("\\") and data[at + 1] == ord("u") else -1
        if not 0xDC00 <= low < 0xE000:
            return -1, -1
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        at += 6
    elif code < 0 or 0xDC00 <= code < 0xE000:
        return -1, -1
    if code < 0x80:
        text[out] = code
        return at, out + 1
    if code < 0x800:
        text[out] = 0xC0 | code >> 6
        text[out + 1] = 0x80 | code & 63
        return at, out + 2
    if code < 0x10000:
        text[out] = 0xE0 | code >> 12
        text[out + 1] = 0x80 | code >> 6 & 63
        text[out + 2] = 0x80 | code & 63
        return at, out + 3
    text[out] = 0xF0 | code >> 18
    text[out + 1] = 0x80 | code >> 12 & 63
    text[out + 2] = 0x80 | code >> 6 & 63
    text[out + 3] = 0x80 | code & 63
    return at, out + 4


@njit(cache=True)
def _hex4(data, at):
    """The number of four hexadecimal digits, or -1."""
    if at + 4 > len(data):
        return -1
    code = 0
    for i in range(4):
        digit = _HEX[data[at + i]]
        if digit < 0:
            return -1
        code = code << 4 | digit
    return code
