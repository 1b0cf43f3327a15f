"""Processing one unit of work: read, route, encode, assemble, shorten, write. Runs in a spawned process (or in line).

State per process: the tokenizer and its encoders, loaded once. Memory: one batch of rows, a few times 4 MB.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from common.files import atomic_directory, hash_file, write_json
from common.seeds import derive_seed
from data_tools.assemble import TRAIN_BIT, BatchRenderer, Documents
from data_tools.config import PrepareConfig
from data_tools.conversation import ChatMessage, RawRow
from data_tools.encoding import Encoder, FastokensEncoder, HFEncoder
from data_tools.indexed import token_dtype
from data_tools.long_rows import shorten
from data_tools.removal import excluded_positions
from data_tools.renderer import Renderer
from data_tools.routing import Routing, SourceRule, apply_rule
from data_tools.rows import read_batches
from data_tools.selfcheck import EncoderMismatch, GuardedEncoder, mismatch_error
from data_tools.tokenizer import END_OF_TEXT
from data_tools.units import PARTS, SourceCount, Unit, UnitRecord, UnitWriter, unit_directory


@dataclass(frozen=True)
class Job:
    """What every unit of a run shares."""

    config: PrepareConfig
    work: Path
    backend: str
    """"fastokens" or "hf", as the self-check decided."""
    key: str


@dataclass(frozen=True)
class _Tools:
    renderer: Renderer
    reference: Encoder
    fast: Encoder | None
    end_of_document: int | None
    excluded: Mapping[str, frozenset[int]]
    """Positions to leave out, by file."""


@lru_cache(maxsize=1)
def _tools(
    key: str, tokenizer: Path, template: str | None, backend: str, append_end: bool, exclude: tuple[Path, ...]
) -> _Tools:
    """Loaded once per job: `key` changes when one of these files is written anew."""
    renderer = Renderer.load(tokenizer, template)
    raw = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    fast = FastokensEncoder(raw) if backend == "fastokens" else None
    end = raw.token_to_id(END_OF_TEXT) if append_end else None
    return _Tools(renderer, HFEncoder(raw), fast, end, excluded_positions(exclude))


def start_worker(parent: int) -> None:
    """Process initializer: die with the parent (a killed parent must leave nothing behind), leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            if stopped.wait(0.5):
                return
        os._exit(1)

    stopped = threading.Event()
    threading.Thread(target=watch, daemon=True).start()


def process_unit(job: Job, unit: Unit) -> UnitRecord:
    """Do one unit and make its directory visible. Raises DataError for unusable input, OSError for a full disk."""
    config = job.config
    tools = _tools(
        *(job.key, config.tokenizer, config.template, job.backend, config.append_end_of_document, config.exclude)
    )
    encoder = tools.reference if tools.fast is None else GuardedEncoder(tools.fast, tools.reference, unit.index)
    try:
        return _process(job, unit, tools, encoder, None)
    except EncoderMismatch as e:
        if config.strict:
            raise mismatch_error(e.text) from e
        return _process(job, unit, tools, tools.reference, e.text[:200])


def _process(job: Job, unit: Unit, tools: _Tools, encoder: Encoder, mismatch: str | None) -> UnitRecord:
    config = job.config
    final = unit_directory(job.work, unit.index)
    renderer = BatchRenderer(tools.renderer, encoder, config.trained_roles, end_of_document=tools.end_of_document)
    routing = Routing(config.sources)
    tally = _Tally()
    with atomic_directory(final) as directory:
        writer = UnitWriter(directory, token_dtype(tools.renderer.vocab_size))
        for batch in read_batches(unit.path, unit.span, on_bad_row=config.on_bad_row):
            tally.bad.update(b.reason for b in batch.bad)
            rows = _without_excluded(config, tools.excluded, unit, batch.rows, tally)
            conversations, sources = _route(config, routing, unit, rows)
            if conversations:
                _write(config, renderer.render(conversations), tally.codes(sources), writer, tally)
        writer.close()
        record = UnitRecord(
            index=unit.index,
            key=job.key,
            counts={source: tally.count(code) for code, source in enumerate(tally.sources)},
            bad_rows=dict(sorted(tally.bad.items())),
            backend=encoder.name,
            mismatch=mismatch,
            sizes={name: (directory / name).stat().st_size for name in PARTS},
            hashes={name: hash_file(directory / name) for name in PARTS},
        )
        write_json(directory / "record.json", record.model_dump())
    return record


def _without_excluded(
    config: PrepareConfig,
    excluded: Mapping[str, frozenset[int]],
    unit: Unit,
    rows: Sequence[RawRow],
    tally: _Tally,
) -> Sequence[RawRow]:
    """The rows that no removal list names."""
    positions = excluded.get(str(unit.path.resolve()))
    if not positions:
        return rows
    left_out = [row for row in rows if row.position in positions]
    default = config.inputs[unit.input_index].source or ""
    tally.add("excluded", tally.codes([row.source or default for row in left_out]))
    return [row for row in rows if row.position not in positions]


def _route(
    config: PrepareConfig, routing: Routing, unit: Unit, rows: Sequence[RawRow]
) -> tuple[list[Sequence[ChatMessage]], list[str]]:
    """The conversations to render and their sources: rules applied, rows drawn as often as the ratio says."""
    chosen = config.inputs[unit.input_index]
    copies = _draw_copies(chosen.ratio, derive_seed(config.seed, "ratio", unit.index), rows)
    conversations: list[Sequence[ChatMessage]] = []
    sources: list[str] = []
    rules: dict[str, SourceRule | None] = {}  # None: rows stay as they are
    for row, count in zip(rows, copies, strict=True):
        if not count:
            continue
        source = row.source or chosen.source or ""
        if source not in rules:
            found = routing.rule(source, where=str(unit.path))
            rules[source] = found if config.strip_system or found.changes_rows else None
        rule = rules[source]
        messages: Sequence[ChatMessage] = row.messages
        if rule is not None:
            messages = apply_rule(rule, messages, strip_system=config.strip_system)
        conversations += [messages] * count
        sources += [source] * count
    return conversations, sources


def _draw_copies(ratio: float, seed: int, rows: Sequence[RawRow]) -> list[int]:
    """How often each row is used: the whole part of the ratio, and once more with the probability of the rest."""
    whole, rest = divmod(ratio, 1.0)
    if not rest:
        return [int(whole)] * len(rows)
    return [int(whole) + (derive_seed(seed, row.number) < rest * 2**63) for row in rows]


class _Tally:
    """Counts of one unit, by source code (numbered in order of appearance)."""

    def __init__(self) -> None:
        self.sources: dict[str, int] = {}
        self.bad: Counter[str] = Counter()
        self._totals = {name: np.zeros(0, np.int64) for name in SourceCount.model_fields}

    def codes(self, sources: Sequence[str]) -> NDArray[np.uint16]:
        """Code of each source, new ones numbered."""
        return np.array([self.sources.setdefault(s, len(self.sources)) for s in sources], np.uint16)

    def add(self, name: str, codes: NDArray[np.uint16], values: NDArray[np.int64] | None = None) -> None:
        """Add `values` (1 each by default) to the counter `name` of their sources."""
        sums = np.bincount(codes, values, minlength=len(self.sources)).astype(np.int64)
        sums[: len(self._totals[name])] += self._totals[name]
        self._totals[name] = sums

    def count(self, code: int) -> SourceCount:
        """The counters of one source."""
        return SourceCount(**{k: int(v[code]) if code < len(v) else 0 for k, v in self._totals.items()})


def _write(
    config: PrepareConfig, documents: Documents, codes: NDArray[np.uint16], writer: UnitWriter, tally: _Tally
) -> None:
    """Write the rows of a batch, long ones shortened, those without a target left out."""
    tally.add("rows", codes)
    tally.add("content_tokens", codes, documents.content_tokens)
    tally.add("trained_content_tokens", codes, documents.trained_content_tokens)
    lengths = np.diff(documents.row_starts)
    limit = config.sequence_length or int(lengths.max(initial=1))
    fits = (lengths <= limit) & (documents.trained_tokens > 0)
    if fits.all():
        tokens, mask, trained = documents.tokens, documents.mask, documents.trained_tokens
    else:
        tokens, mask, kept = _select(config, documents, codes, limit, fits, tally)
        codes = codes[kept.rows]
        lengths, trained = kept.lengths, kept.trained
    tally.add("documents", codes)
    tally.add("tokens", codes, lengths)
    tally.add("trained_tokens", codes, trained)
    writer.add(tokens, mask, lengths.astype(np.int32), codes)


@dataclass(frozen=True)
class _Kept:
    rows: NDArray[np.int64]
    """Row of each kept document."""
    lengths: NDArray[np.int64]
    trained: NDArray[np.int64]


def _select(
    config: PrepareConfig,
    documents: Documents,
    codes: NDArray[np.uint16],
    limit: int,
    fits: NDArray[np.bool_],
    tally: _Tally,
) -> tuple[NDArray[np.int32], NDArray[np.uint8], _Kept]:
    """Tokens, masks and rows of what is kept of a batch in which some rows do not fit or have no target."""
    first_message = np.cumsum(documents.message_counts) - documents.message_counts
    tokens: list[NDArray[np.int32]] = []
    masks: list[NDArray[np.uint8]] = []
    rows: list[int] = []
    for row in range(len(fits)):
        start, stop = documents.row_starts[row], documents.row_starts[row + 1]
        pieces = [(documents.tokens[start:stop], documents.mask[start:stop])]
        if not fits[row]:
            code = codes[row : row + 1]
            if stop - start <= limit:
                pieces = []
            else:
                first = first_message[row]
                starts = documents.message_starts[first : first + documents.message_counts[row]] - start
                pieces = shorten(config.on_long, *pieces[0], starts, limit)
                tally.add({"truncate": "truncated", "split": "split", "drop": "dropped_long"}[config.on_long], code)
            if (not pieces and config.on_long != "drop") or stop - start <= limit:
                tally.add("dropped_untrained", code)
        for piece_tokens, piece_mask in pieces:
            tokens.append(piece_tokens)
            masks.append(piece_mask)
            rows.append(row)
    kept = _Kept(
        np.array(rows, np.int64),
        np.array([len(t) for t in tokens], np.int64),
        np.array([int((m & TRAIN_BIT).sum()) for m in masks], np.int64),
    )
    empty = np.zeros(0, np.int32)
    return np.concatenate([empty, *tokens]), np.concatenate([empty.astype(np.uint8), *masks]), kept
