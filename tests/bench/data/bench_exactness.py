"""Is the fast tokenizer token for token the reference, on 100,000 rows and 100,000 adversarial strings?

    python -m tests.bench.data.bench_exactness [--corpus FILE.jsonl] [--tokenizer DIR] [--rows 1e5] [--strings 1e5]

Compared are rows of the corpus and adversarial text: combining marks, white space, special-token text, scripts,
contractions, emoji, control characters and NUL, decomposed letters. Exits 1 at the first difference and prints it.
The test suite does the same on some thousands.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_tools.encoding import FastokensEncoder, HFEncoder
from data_tools.renderer import Renderer
from data_tools.rows import read_conversations
from data_tools.selfcheck import adversarial_texts, first_difference
from data_tools.tokenizer import save_tokenizer, train_tokenizer
from tests.bench.data.bench_throughput import VOCAB_SIZE, make_rows

KINDS = 8
BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--rows", type=float, default=1e5)
    parser.add_argument("--strings", type=float, default=1e5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokenizer_dir = args.corpus, args.tokenizer
        if corpus is None:
            corpus = Path(folder) / "corpus.jsonl"
            corpus.write_bytes(b"".join(make_rows(args.rows * 1.7e-3)))
        if tokenizer_dir is None:
            tokenizer_dir = Path(folder) / "tokenizer"
            save_tokenizer(train_tokenizer(contents(corpus, 20_000), VOCAB_SIZE), tokenizer_dir)
        renderer = Renderer.load(tokenizer_dir)
        fast, reference = FastokensEncoder(renderer.plain), HFEncoder(renderer.plain)
        print(f"{fast.version} against {reference.version}, vocabulary {renderer.vocab_size:,}")
        specials = [t.content for t in renderer.plain.get_added_tokens_decoder().values()]
        strings = adversarial_texts(specials, per_kind=int(args.strings) // KINDS, seed=1)
        compare("adversarial strings", iter(strings), fast, reference)
        compare(f"messages of {int(args.rows):,} rows", contents(corpus, int(args.rows)), fast, reference)


def contents(corpus: Path, rows: int) -> Iterator[str]:
    """Message contents of the first rows."""
    for conversation in islice(read_conversations([corpus], default_source="bench"), rows):
        for message in conversation.messages:
            yield message.content


def compare(name: str, texts: Iterator[str], fast: FastokensEncoder, reference: HFEncoder) -> None:
    """Compare in batches; exit at a difference."""
    count = 0
    while batch := list(islice(texts, BATCH)):
        different = first_difference(fast, reference, batch)
        if different is not None:
            sys.exit(f"{name}: they differ on {different!r}")
        count += len(batch)
    print(f"{count:,} {name}: equal", flush=True)


if __name__ == "__main__":
    main()
