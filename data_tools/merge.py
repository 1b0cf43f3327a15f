"""`osim data merge`: shards of independent jobs into one.

Jobs of one preparation (shard_job k of n), merged in order, give the bytes that one job would have given; those to
which no document fell are passed over.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UsageError
from common.files import hash_json
from common.redact import redact
from data_tools.config import PrepareConfig
from data_tools.indexed import add_suffix
from data_tools.manifest import Manifest
from data_tools.publish import PackSettings, Part, join, publish
from data_tools.shards import Shard
from data_tools.units import SourceCount


def merge(prefixes: Sequence[Path], output: Path, *, overwrite: bool = False) -> Manifest:
    """Join the shards into `output`, in the given order, and pack again as the first one was packed.

    Raises UsageError when they were made with different tokenizers or packing, or when `output` exists.
    """
    if not prefixes:
        raise UsageError("no shard to merge", fix="give at least one prefix")
    if add_suffix(output, ".idx").exists() and not overwrite:
        raise UsageError("there is a shard already", where=str(output), fix="give another output, or overwrite")
    shards = [Shard.open(p) for p in prefixes if Manifest.read(p).documents]
    if not shards:
        raise UsageError("the shards hold no document", where=str(prefixes[0]), fix="look at their manifests' counts")
    first = shards[0].manifest
    _check_alike(shards)
    parts = [
        Part(
            add_suffix(s.prefix, ".bin"),
            add_suffix(s.prefix, ".mask.bin"),
            np.asarray(s.tokens.lengths),
            np.asarray(s.sources),
            s.manifest.sources,
        )
        for s in shards
    ]
    joined = join(output, parts, shards[0].tokens.dtype, _pack_settings(first))
    manifests = [s.manifest for s in shards]
    manifest = Manifest(
        command=tuple(map(redact, sys.argv)),
        config=first.config,
        key=hash_json([m.key for m in manifests]),
        inputs=tuple(dict.fromkeys(i for m in manifests for i in m.inputs)),
        tokenizer=first.tokenizer.model_copy(
            update={"units_redone": sum(m.tokenizer.units_redone for m in manifests)}
        ),
        sources=joined.sources,
        counts=_sum_counts(manifests),
        bad_rows=dict(sorted(sum((Counter(m.bad_rows) for m in manifests), Counter()).items())),
        documents=joined.documents,
        tokens=joined.tokens,
        trained_tokens=sum(m.trained_tokens for m in manifests),
        longest=joined.longest,
        pack=joined.pack,
        files=joined.files,
    )
    publish(output, joined, manifest)
    return manifest


def _check_alike(shards: Sequence[Shard]) -> None:
    first = shards[0]
    for other in shards[1:]:
        if other.manifest.tokenizer.fingerprint != first.manifest.tokenizer.fingerprint:
            raise UsageError(
                f"made with another tokenizer or template than {first.prefix}",
                where=str(other.prefix),
                fix="prepare all shards with one tokenizer",
            )
        if _pack_settings(other.manifest) != _pack_settings(first.manifest):
            raise UsageError(
                f"packed in another way than {first.prefix}",
                where=str(other.prefix),
                fix="prepare all shards with the same sequence_length, pack_window, max_segments and seed",
            )


def _pack_settings(manifest: Manifest) -> PackSettings | None:
    config = PrepareConfig.model_validate({**manifest.config, "tokenizer": "-", "output": "-"})
    return PackSettings.of(config)


def _sum_counts(manifests: Sequence[Manifest]) -> dict[str, SourceCount]:
    totals: dict[str, SourceCount] = {}
    for manifest in manifests:
        for source, count in manifest.counts.items():
            totals[source] = totals.get(source, SourceCount()) + count
    return dict(sorted(totals.items()))
