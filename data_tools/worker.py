"""Processing one unit of work: read, route, encode, assemble, shorten, write. Runs in a worker process (or in line).

State per process: the tokenizer and its encoders, loaded once; forked workers share their parent's. Memory: one
batch of rows, a few MB.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.files import atomic_directory, hash_file, write_sealed_json
from common.seeds import derive_seed
from data_tools.assemble import TRAIN_BIT, BatchRenderer, Documents
from data_tools.column_rules import apply_rules
from data_tools.columns import Columns, RowBatch
from data_tools.config import PrepareConfig
from data_tools.encoding import Encoder, FastokensEncoder, HFEncoder
from data_tools.indexed import token_dtype
from data_tools.labels import Labels
from data_tools.long_rows import shorten
from data_tools.removal import excluded_positions
from data_tools.renderer import Renderer
from data_tools.routing import Routing
from data_tools.rows import read_batches
from data_tools.selfcheck import EncoderMismatch, GuardedEncoder, mismatch_error
from data_tools.tokenizer import END_OF_TEXT
from data_tools.units import SourceCount, Unit, UnitRecord, UnitWriter, unit_directory


@dataclass(frozen=True)
class Job:
    """What every unit of a run shares."""

    config: PrepareConfig
    work: Path
    fast: bool
    """Use the fast encoder, as the self-check decided."""
    key: str
    tokenizer: str
    """tokenizer_content(config)"""


@dataclass(frozen=True)
class Tools:
    """What a process loads once per job."""

    renderer: Renderer
    reference: Encoder
    fast: Encoder | None
    """None where the backend is hf."""
    end_of_document: int | None
    excluded: Mapping[str, frozenset[int]]
    """Positions to leave out, by file."""


def tokenizer_content(config: PrepareConfig) -> str:
    """Changes when the tokenizer is written anew."""
    path = config.tokenizer / "tokenizer.json"
    return hash_file(path) if path.is_file() else ""


def load_renderer(config: PrepareConfig, content: str) -> Renderer:
    """The renderer of a job. Loading a large vocabulary takes a second, so a process keeps it."""
    return _load_renderer(config.tokenizer, config.template, content)


@lru_cache(maxsize=1)
def _load_renderer(tokenizer: Path, template: str | None, content: str) -> Renderer:
    return Renderer.load(tokenizer, template)


@lru_cache(maxsize=1)
def _load_fast(renderer: Renderer) -> Encoder:
    return FastokensEncoder(renderer.plain)


def load_tools(key: str, config: PrepareConfig, content: str) -> Tools:
    """The tools of the job with this key: it changes when a removal list is written anew."""
    renderer = load_renderer(config, content)
    return Tools(
        renderer,
        HFEncoder(renderer.plain),
        None if config.backend == "hf" else _load_fast(renderer),
        renderer.plain.token_to_id(END_OF_TEXT) if config.append_end_of_document else None,
        _load_excluded(key, config.exclude),
    )


@lru_cache(maxsize=1)
def _load_excluded(key: str, exclude: tuple[Path, ...]) -> Mapping[str, frozenset[int]]:
    return excluded_positions(exclude)


def start_worker(parent: int, lock: int | None) -> None:
    """Process initializer: die with the parent (a killed parent must leave nothing behind), leave Ctrl-C to it.

    lock: descriptor of the parent's lock, in a forked process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if lock is not None:
        os.close(lock)

    def watch() -> None:
        while os.getppid() == parent:
            if stopped.wait(0.5):
                return
        os._exit(1)

    stopped = threading.Event()
    threading.Thread(target=watch, daemon=True).start()


def process_unit(job: Job, unit: Unit) -> UnitRecord:
    """Do one unit and make its directory visible. Raises DataError for unusable input, OSError for a full disk."""
    tools = load_tools(job.key, job.config, job.tokenizer)
    if not job.fast or tools.fast is None:
        return _process(job, unit, tools, tools.reference, None)
    try:
        return _process(job, unit, tools, GuardedEncoder(tools.fast, tools.reference, unit.index), None)
    except EncoderMismatch as e:
        if job.config.strict:
            raise mismatch_error(e.text) from e
        return _process(job, unit, tools, tools.reference, e.text[:200])


def _process(job: Job, unit: Unit, tools: Tools, encoder: Encoder, mismatch: str | None) -> UnitRecord:
    config = job.config
    final = unit_directory(job.work, unit.index)
    renderer = BatchRenderer(tools.renderer, encoder, config.trained_roles, end_of_document=tools.end_of_document)
    routing = Routing(config.sources)
    tally = _Tally()
    choice = _RowChoice(config, unit, tools.excluded)
    with atomic_directory(final, durable=False) as directory:
        writer = UnitWriter(directory, token_dtype(tools.renderer.vocab_size))
        for batch in read_batches(unit.path, unit.span, on_bad_row=config.on_bad_row):
            tally.bad.update(b.reason for b in batch.bad)
            rows = choice.choose(batch, tally)
            if len(rows):
                codes = tally.codes(rows.sources)
                rules = {source: routing.rule(source, where=str(unit.path)) for source in rows.sources.used}
                rows = apply_rules(rules, rows, strip_system=config.strip_system)
                _write(config, renderer.render(rows), codes, writer, tally)
        sizes, hashes = writer.close()
        record = UnitRecord(
            index=unit.index,
            key=job.key,
            counts={source: tally.count(code) for code, source in enumerate(tally.sources)},
            bad_rows=dict(sorted(tally.bad.items())),
            backend=encoder.name,
            mismatch=mismatch,
            sizes=sizes,
            hashes=hashes,
        )
        write_sealed_json(directory / "record.json", record.model_dump())
    return record


class _RowChoice:
    """The rows of a unit to render: without those of the removal lists, each as often as the ratio says."""

    def __init__(self, config: PrepareConfig, unit: Unit, excluded: Mapping[str, frozenset[int]]) -> None:
        chosen = config.inputs[unit.input_index]
        self._source = chosen.source or ""
        self._excluded = np.array(sorted(excluded.get(str(unit.path.resolve()), ())), np.int64)
        self._whole, self._rest = divmod(chosen.ratio, 1.0)
        self._rng = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "ratio", unit.index)))
        self._read = 0

    def choose(self, batch: RowBatch, tally: _Tally) -> Columns:
        """The next batch of the unit."""
        rows = batch.columns
        if self._source:
            rows = replace(rows, sources=rows.sources.filled(self._source))
        copies = np.full(len(rows), int(self._whole))
        if self._rest:
            # One draw for each row read, in order: neither bad rows nor the cut into batches matter.
            draws = self._rng.random(len(rows) + len(batch.bad))
            copies += draws[batch.numbers - self._read] < self._rest
            self._read += len(draws)
        if len(self._excluded):
            left_out = np.isin(batch.positions, self._excluded)
            tally.add("excluded", tally.codes(rows.sources.take(np.flatnonzero(left_out))))
            copies[left_out] = 0
        return rows if (copies == 1).all() else rows.take(np.repeat(np.arange(len(rows)), copies))


class _Tally:
    """Counts of one unit, by source code (numbered batch by batch)."""

    def __init__(self) -> None:
        self.sources: dict[str, int] = {}
        self.bad: Counter[str] = Counter()
        self._totals = {name: np.zeros(0, np.int64) for name in SourceCount.model_fields}

    def codes(self, sources: Labels) -> NDArray[np.uint16]:
        """Code of each source, new ones numbered."""
        return sources.lookup(lambda source: self.sources.setdefault(source, len(self.sources)), np.uint16)

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
) -> tuple[NDArray[np.int32 | np.uint16], NDArray[np.uint8], _Kept]:
    """Tokens, masks and rows of what is kept of a batch in which some rows do not fit or have no target."""
    first_message = np.cumsum(documents.message_counts) - documents.message_counts
    tokens: list[NDArray[np.int32 | np.uint16]] = []
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
    return np.concatenate([documents.tokens[:0], *tokens]), np.concatenate([documents.mask[:0], *masks]), kept
