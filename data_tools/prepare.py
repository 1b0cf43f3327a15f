"""`osim data prepare`: corpora to one shard. Runs in one parent process and `workers` others.

The input is cut into units of work that do not depend on the number of workers; each finished unit is one directory
in PREFIX.work that appeared by one rename. A run that was killed anywhere is resumed by the same command: finished
units are kept, everything else is done again, and the result is byte-identical. A worker that dies, or does nothing
for `unit_timeout_s`, is replaced and its unit retried once; then the run fails. A finished shard is checked before
the same command calls it done.
"""

from __future__ import annotations

import errno
import gc
import itertools
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from common.errors import DataError, GateError, UsageError
from common.files import hash_file, hash_json, read_json_object, write_json
from common.redact import redact
from common.run_folder import RunFolder
from data_tools.config import PrepareConfig
from data_tools.indexed import add_suffix, token_dtype
from data_tools.manifest import InputFacts, Manifest, TokenizerFacts
from data_tools.pool import interrupted, run_in_pool
from data_tools.publish import Joined, PackSettings, Part, join, publish
from data_tools.renderer import Renderer
from data_tools.routing import Routing
from data_tools.rows import find_files, read_batches
from data_tools.selfcheck import SelfCheck, adversarial_texts, self_check
from data_tools.units import (
    InputFile,
    SourceCount,
    Unit,
    UnitRecord,
    finished_unit,
    list_input,
    plan_units,
    unit_directory,
)
from data_tools.verify import damaged_files
from data_tools.worker import (
    Job,
    Tools,
    load_renderer,
    load_tools,
    process_unit,
    tokenizer_content,
)

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with (bytes of input done, bytes of input in all)."""
EARLY_CHECK_ROWS = 10_000
"""A source whose mask is all or nothing over this many rows stops the run before its end."""
SAMPLE_UNITS, SAMPLE_TEXTS, SAMPLE_CHARS = 8, 250, 60_000
"""Of the start-up self-check: parts of the input, texts and characters of each."""


def prepare(config: PrepareConfig, progress: Progress | None = None) -> Manifest:
    """Make the shard `config.output`, or return its manifest if it is already there.

    Raises UsageError or DataError for wrong configuration or input, GateError when a source's mask trains nothing or
    everything, Interrupted after Ctrl-C (the same command resumes).
    """
    content = tokenizer_content(config)
    with _no_garbage_collection():
        renderer = load_renderer(config, content)
    files = [list_input(p, i) for i, given in enumerate(config.inputs) for p in find_files(given.glob)]
    key = _content_key(config, renderer, files)
    done = _existing(config, key)
    if done is not None:
        return done
    units = plan_units(files, config.unit_mb << 20)
    share = len(units) / config.shard_jobs
    units = units[round(config.shard_job * share) : round((config.shard_job + 1) * share)]
    work = add_suffix(config.output, ".work")
    with RunFolder(work).lock() as lock, _disk_errors(config.output):
        if (done := _existing(config, key)) is not None:  # by a run that has ended since
            shutil.rmtree(work)
            return done
        _open_work(work, key, overwrite=config.overwrite)
        with _no_garbage_collection():
            tools = load_tools(key, config, content)
        check = _self_check(tools, config, units)
        job = Job(config, work, check.backend == "fastokens", key, content)
        with ThreadPoolExecutor(1) as pool:
            hashes = pool.submit(lambda: [hash_file(f.path) for f in files])
            with _units_of_a_suspicious_mask_discarded(work):
                records = _run_units(job, units, lock, progress or (lambda done, total: None))
                check_masks(config, total_counts(records))
            parts = [_part(job, record) for record in records]
            # With more jobs than input some have nothing to do; `merge` passes over them.
            nothing = config.shard_jobs > 1 and not any(len(part.lengths) for part in parts)
            dtype, packed = token_dtype(renderer.vocab_size), _pack_settings(config)
            joined = Joined.nothing() if nothing else join(config.output, parts, dtype, packed)
            manifest = _manifest(config, renderer, key, files, hashes.result(), check, records, joined)
        publish(config.output, joined, manifest)
        shutil.rmtree(work)
    return manifest


def _content_key(config: PrepareConfig, renderer: Renderer, files: Sequence[InputFile]) -> str:
    described = [{**asdict(f), "path": str(f.path)} for f in files]
    return hash_json(
        {
            "config": config.content_fields(),
            "tokenizer": renderer.fingerprint,
            "files": described,
            "exclude": [hash_file(path) for path in config.exclude],
        }
    )


def _existing(config: PrepareConfig, key: str) -> Manifest | None:
    """The manifest of a whole shard of the same content; UsageError when another one is in the way.

    Every file is read: one that is not what was written has the shard made again.
    """
    if not add_suffix(config.output, ".idx").exists() or config.overwrite:
        return None
    manifest = Manifest.read(config.output)
    if manifest.key != key:
        raise UsageError(
            "another shard is there, made with other inputs, tokenizer or configuration",
            where=str(config.output),
            fix="give another output, or overwrite: true to replace it",
        )
    if damaged := damaged_files(config.output, manifest):
        logger.warning("%s is damaged (%s): it is made again", config.output, "; ".join(damaged))
        return None
    return manifest


def _open_work(work: Path, key: str, *, overwrite: bool) -> None:
    """Keep the finished units of an interrupted run of the same content, refuse those of another."""
    plan = work / "plan.json"
    (work / "units").mkdir(exist_ok=True)
    if plan.exists() and _planned(plan) != key:
        if not overwrite and any((work / "units").iterdir()):
            raise UsageError(
                "an unfinished run with other inputs, tokenizer or configuration is there",
                where=str(work),
                fix="repeat that command to finish it, remove the folder, or set overwrite: true",
            )
        shutil.rmtree(work / "units")
        (work / "units").mkdir()
    write_json(plan, {"key": key})


def _planned(plan: Path) -> str:
    """The key of the interrupted run; units have their own, so that a damaged plan loses nothing but theirs."""
    try:
        return str(read_json_object(plan).get("key"))
    except DataError:
        return "unreadable"


def _self_check(tools: Tools, config: PrepareConfig, units: Sequence[Unit]) -> SelfCheck:
    specials = [t.content for t in tools.renderer.plain.get_added_tokens_decoder().values()]
    texts = [*adversarial_texts(specials), *_sample_texts(units)]
    may_fall_back = config.backend == "auto" and not config.strict
    return self_check(tools.reference, tools.fast, texts, may_fall_back=may_fall_back)


def _sample_texts(units: Sequence[Unit]) -> list[str]:
    """Message contents from parts spread over the input."""
    texts: list[str] = []
    step = max(1, len(units) // SAMPLE_UNITS)
    for unit in units[::step][:SAMPLE_UNITS]:
        chars = 0
        for batch in itertools.islice(read_batches(unit.path, unit.span, on_bad_row="skip"), 1):
            contents = batch.columns.contents
            for text in contents[:: 1 + len(contents) // SAMPLE_TEXTS]:
                chars += len(text)
                if chars > SAMPLE_CHARS:
                    break
                texts.append(text)
    return texts


def _run_units(job: Job, units: Sequence[Unit], lock: int, progress: Progress) -> list[UnitRecord]:
    """Records of all units in order; finished ones are taken from disk. lock: see start_worker."""
    records: dict[int, UnitRecord] = {}
    total, done = sum(u.size for u in units), 0
    todo = []
    for unit in units:
        record = finished_unit(job.work, unit.index, job.key)
        if record is None:
            todo.append(unit)
        else:
            records[unit.index] = record
            done += unit.size
    progress(done, total)
    made = _run_in_line(job, todo) if job.config.workers == 1 else run_in_pool(job, todo, lock)
    # Closed, that is no worker writes any more, before anybody discards the units.
    with closing(made) as finished:
        for unit, record in finished:
            records[unit.index] = record
            done += unit.size
            progress(done, total)
            check_masks(job.config, total_counts(list(records.values())), at_least=EARLY_CHECK_ROWS)
    return [records[u.index] for u in units]


def _run_in_line(job: Job, units: Sequence[Unit]) -> Generator[tuple[Unit, UnitRecord], None, None]:
    try:
        for unit in units:
            yield unit, process_unit(job, unit)
    except KeyboardInterrupt:
        raise interrupted() from None


def total_counts(records: Sequence[UnitRecord]) -> dict[str, SourceCount]:
    """Counts by source over all units, sources sorted."""
    totals: dict[str, SourceCount] = {}
    for record in records:
        for source, count in record.counts.items():
            totals[source] = totals.get(source, SourceCount()) + count
    return dict(sorted(totals.items()))


@contextmanager
def _units_of_a_suspicious_mask_discarded(work: Path) -> Iterator[None]:
    """After GateError: those units are of no use under any other configuration either."""
    try:
        yield
    except GateError:
        shutil.rmtree(work / "units")
        raise


def check_masks(config: PrepareConfig, counts: Mapping[str, SourceCount], *, at_least: int = 1) -> None:
    """Stop when a source of `at_least` rows trains none or all of its content and its rule does not allow it."""
    routing = Routing(config.sources)
    wrong = []
    for source, count in counts.items():
        if count.rows < at_least or not count.content_tokens:
            continue
        rule = routing.rule(source)
        if not count.trained_content_tokens and not rule.allow_untrained:
            wrong.append(f"{source}: none of {count.content_tokens} content tokens is trained (allow_untrained)")
        if count.trained_content_tokens == count.content_tokens and not rule.allow_all_trained:
            wrong.append(f"{source}: all {count.content_tokens} content tokens are trained (allow_all_trained)")
    if wrong:
        raise GateError(
            "the loss mask is suspicious\n" + "\n".join(f"  - {w}" for w in wrong),
            fix="correct the source's rule (swap?) under `sources`, or declare it with the field named above",
        )


def _pack_settings(config: PrepareConfig) -> PackSettings | None:
    """How this job packs. A mixture is one of the whole: only `merge` sees what all jobs have of each source."""
    settings = PackSettings.of(config)
    return replace(settings, mixture=None) if settings is not None and config.shard_jobs > 1 else settings


def _part(job: Job, record: UnitRecord) -> Part:
    directory = unit_directory(job.work, record.index)
    return Part(
        directory / "tokens.bin",
        directory / "mask.bin",
        np.load(directory / "lengths.npy", allow_pickle=False),
        np.load(directory / "sources.npy", allow_pickle=False),
        list(record.counts),
    )


def _manifest(
    config: PrepareConfig,
    renderer: Renderer,
    key: str,
    files: Sequence[InputFile],
    hashes: Sequence[str],
    check: SelfCheck,
    records: Sequence[UnitRecord],
    joined: Joined,
) -> Manifest:
    counts = total_counts(records)
    bad = sum((Counter(r.bad_rows) for r in records), Counter())
    return Manifest(
        command=tuple(map(redact, sys.argv)),
        config=config.content_fields(),
        key=key,
        inputs=tuple(
            InputFacts(size=f.size, xxh3_128=h, path=str(f.path), ratio=config.inputs[f.input_index].ratio)
            for f, h in zip(files, hashes, strict=True)
        ),
        tokenizer=TokenizerFacts(
            folder=str(config.tokenizer),
            vocab_size=renderer.vocab_size,
            fingerprint=renderer.fingerprint,
            template=renderer.template.name,
            end_id=renderer.end_id,
            backend=check.backend,
            backend_version=check.version,
            reference_version=check.reference,
            checked_strings=check.strings,
            mismatch=check.mismatch,
            units_redone=sum(r.mismatch is not None for r in records),
        ),
        sources=joined.sources,
        counts=counts,
        bad_rows=dict(sorted(bad.items())),
        documents=joined.documents,
        tokens=joined.tokens,
        trained_tokens=sum(c.trained_tokens for c in counts.values()),
        longest=joined.longest,
        pack=joined.pack,
        files=joined.files,
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Loading a tokenizer makes hundreds of thousands of objects: looking for garbage among them takes 0.2 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            "the disk is full",
            where=str(output),
            fix="free space; the same command resumes, nothing else was changed",
        ) from e
