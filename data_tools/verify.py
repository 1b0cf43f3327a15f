"""`osim data verify`: is a shard what its manifest says, and does it keep its invariants? Reads every byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.files import hash_file
from common.seeds import derive_rng
from data_tools.assemble import ROLE_SHIFT, TRAIN_BIT
from data_tools.conversation import ROLES
from data_tools.indexed import add_suffix
from data_tools.inspect import spans
from data_tools.manifest import Manifest
from data_tools.packing import Packing
from data_tools.publish import packed_tokens
from data_tools.renderer import Renderer
from data_tools.shards import Shard, read_pack

BLOCK = 1 << 24
"""Tokens looked at together."""


@dataclass(frozen=True)
class VerifyReport:
    """What was checked, and what was found wrong."""

    checks: tuple[str, ...]
    problems: tuple[str, ...]


def verify(
    prefix: Path,
    *,
    tokenizer: Path | None = None,
    sample: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """`examine`, and DataError with every problem when there is one."""
    report = examine(prefix, tokenizer=tokenizer, sample=sample, progress=progress)
    if report.problems:
        listing = "\n".join(f"  - {p}" for p in report.problems)
        raise DataError(f"the shard is damaged\n{listing}", where=str(prefix), fix="run `osim data prepare` again")
    return report


def examine(
    prefix: Path,
    *,
    tokenizer: Path | None = None,
    sample: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Check sizes, checksums, geometry, ids, masks, counts and packing.

    With a tokenizer folder, also decode `sample` documents and encode them again with the reference library: the ids
    must come back. Raises DataError when the shard cannot even be opened.
    """
    shard = Shard.open(prefix)
    steps: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("file sizes and checksums", lambda: _checksums(prefix, shard.manifest)),
        ("index: lengths and pointers", lambda: _index(shard)),
        ("token ids and mask bytes", lambda: _tokens(shard)),
        ("counts per source", lambda: _counts(shard)),
    ]
    if shard.manifest.pack is not None:
        steps.append(("packing", lambda: _packing(shard)))
    if tokenizer is not None:
        steps.append((f"decode and encode {sample} documents", lambda: _round_trip(shard, tokenizer, sample)))
    problems: list[str] = []
    for i, (_, check) in enumerate(steps):
        problems += check()
        if progress:
            progress(i + 1, len(steps))
    return VerifyReport(tuple(name for name, _ in steps), tuple(problems))


def damaged_files(prefix: Path, manifest: Manifest) -> list[str]:
    """What is wrong with the files that the manifest names: sizes and checksums. Reads every byte."""
    return list(_checksums(prefix, manifest))


def _checksums(prefix: Path, manifest: Manifest) -> Iterator[str]:
    for suffix, facts in manifest.files.items():
        path = add_suffix(prefix, suffix)
        if not path.is_file():
            yield f"{path.name}: missing"
        elif path.stat().st_size != facts.size:
            yield f"{path.name}: {path.stat().st_size} bytes instead of {facts.size}"
        elif hash_file(path) != facts.xxh3_128:
            yield f"{path.name}: checksum differs"


def _index(shard: Shard) -> Iterator[str]:
    for name, reader in ((".idx", shard.tokens), (".mask.idx", shard.mask)):
        if not np.array_equal(reader.lengths, shard.tokens.lengths):
            yield f"{name}: lengths differ from the tokens'"
        expected = np.cumsum(reader.lengths, dtype=np.int64)[:-1] * reader.dtype.itemsize
        if not np.array_equal(reader.pointers[1:], expected):
            yield f"{name}: pointers do not follow from the lengths"
    if int(shard.tokens.lengths.min(initial=1)) < 1:
        yield "a document has no tokens"


def _tokens(shard: Shard) -> Iterator[str]:
    highest = trained = bad_roles = 0
    lowest = 0
    for start in range(0, shard.tokens.num_items, BLOCK):
        ids, flags = shard.tokens.items[start : start + BLOCK], shard.mask.items[start : start + BLOCK]
        highest, lowest = max(highest, int(ids.max())), min(lowest, int(ids.min()))
        trained += int((flags & TRAIN_BIT).sum(dtype=np.int64))
        bad_roles += int((flags >> np.uint8(ROLE_SHIFT) >= len(ROLES)).sum())
    vocab_size = shard.manifest.tokenizer.vocab_size
    if highest >= vocab_size or lowest < 0:
        yield f"token ids reach from {lowest} to {highest}, the vocabulary has {vocab_size}"
    if bad_roles:
        yield f"{bad_roles} mask bytes name no role"
    if trained != shard.manifest.trained_tokens:
        yield f"{trained} trained tokens, the manifest says {shard.manifest.trained_tokens}"


def _counts(shard: Shard) -> Iterator[str]:
    manifest = shard.manifest
    if len(shard.sources) and int(shard.sources.max()) >= len(manifest.sources):
        yield "a source code is not in the manifest"
        return
    documents = np.bincount(shard.sources, minlength=len(manifest.sources))
    tokens = np.bincount(shard.sources, shard.tokens.lengths, minlength=len(manifest.sources)).astype(np.int64)
    for code, source in enumerate(manifest.sources):
        count = manifest.counts[source]
        if (documents[code], tokens[code]) != (count.documents, count.tokens):
            yield (
                f"{source}: {documents[code]} documents with {tokens[code]} tokens, "
                f"the manifest says {count.documents} with {count.tokens}"
            )


def _packing(shard: Shard) -> Iterator[str]:
    packing = read_pack(add_suffix(shard.prefix, ".pack"), shard.tokens.lengths)
    if int(packing.documents.max(initial=0)) >= len(shard):
        yield f"a document of {add_suffix(shard.prefix, '.pack').name} is not in the shard"
        return
    ends = (int(packing.offsets[0]), int(packing.offsets[-1]))
    if ends != (0, len(packing.documents)) or (np.diff(packing.offsets) < 0).any():
        yield f"the bins of {add_suffix(shard.prefix, '.pack').name} do not tile its documents"
        return
    yield from _packed_documents(shard, packing)
    if int(bin_tokens(packing, np.asarray(shard.tokens.lengths)).max(initial=0)) > packing.capacity:
        yield "a bin holds more than its capacity"


def _packed_documents(shard: Shard, packing: Packing) -> Iterator[str]:
    """Each document once; in a mixture those of a source equally often, or once more."""
    facts, lengths, sources = shard.manifest.pack, np.asarray(shard.tokens.lengths), np.asarray(shard.sources)
    if int(sources.max(initial=0)) >= len(shard.manifest.sources):
        return  # `_counts` tells it.
    times = np.bincount(packing.documents, minlength=len(shard))
    if facts is None or facts.mixture is None:
        if times.max(initial=0) > 1:
            yield "a document is packed twice"
    else:
        for code, source in enumerate(shard.manifest.sources):
            own = times[(sources == code) & (lengths <= packing.capacity)]
            if len(own) and np.ptp(own) > 1:
                yield f"{source}: some documents are packed {own.max()} times, others {own.min()}"
    found = packed_tokens(packing, lengths, sources, shard.manifest.sources)
    if facts is not None and facts.tokens and found != facts.tokens:
        yield f"tokens in the bins are {found}, the manifest says {facts.tokens}"


def bin_tokens(packing: Packing, lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    """Tokens of each bin, int64[num_bins]."""
    ends = np.concatenate([[0], np.cumsum(lengths[packing.documents], dtype=np.int64)])
    return np.diff(ends[packing.offsets])


def _round_trip(shard: Shard, tokenizer: Path, sample: int) -> Iterator[str]:
    renderer = Renderer.load(tokenizer, shard.manifest.tokenizer.template)
    if renderer.fingerprint != shard.manifest.tokenizer.fingerprint:
        yield f"{tokenizer} is not the tokenizer that made this shard"
        return
    rng = derive_rng(0, "verify", len(shard))
    for i in sorted(rng.sample(range(len(shard)), min(sample, len(shard)))):
        document = spans(shard, renderer, i)
        # Only whole messages: what was cut between tokens may encode differently by itself.
        for header, content, end in zip(document, document[1:], document[2:], strict=False):
            if [header.kind, content.kind, end.kind] != ["header", "content", "end"]:
                continue
            if renderer.encode_content(content.text) != list(content.ids):
                yield f"document {i}: {content.text[:40]!r} encodes to other ids"
                break
