"""Preparation against its own ceilings: the tokenizer library alone, and the disk, in one run on the same file.

    python -m tests.bench.data.throughput [--megabytes 8] [--corpus FILE.jsonl] [--tokenizer DIR]
        [--peer /path/to/Megatron-LM]   # your own checkout: also runs its tools/preprocess_data.py and _fast.py

CPU-seconds (user + system, children too) are the figure to compare; wall time needs a quiet machine.
Without --corpus it makes chat rows from the Python sources and documents of this environment: text that the tokenizer
(trained on a tenth of it) has mostly not seen.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from tokenizers import Tokenizer

from common.seeds import derive_rng
from data_tools.config import PrepareConfig
from data_tools.encoding import Encoder, FastokensEncoder, HFEncoder
from data_tools.prepare import prepare
from data_tools.rows import read_conversations
from data_tools.tokenizer import save_tokenizer, texts_of, train_tokenizer

VOCAB_SIZE = 32_000
HF_SHARE = 20
"""The reference library is measured on one text in this many."""


@dataclass(frozen=True)
class Measured:
    """One line of the result."""

    name: str
    tokens: int
    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        rate = self.tokens / max(self.cpu_s, 1e-9) / 1e6
        times = f"wall {self.wall_s:7.2f} s  CPU {self.cpu_s:7.2f} s"
        return f"{self.name:52s} {self.tokens / 1e6:9.2f} Mtok  {times}  {rate:7.2f} Mtok/CPU-s"


def measure(name: str, work: Callable[[], int]) -> Measured:
    """Run `work` (returns tokens) and take wall and CPU time, children included."""
    wall, before = time.perf_counter(), os.times()
    tokens = work()
    after = os.times()
    result = Measured(name, tokens, time.perf_counter() - wall, sum(after[:4]) - sum(before[:4]))
    print(result, flush=True)
    return result


def make_corpus(path: Path, megabytes: float) -> None:
    """Chat rows of paragraphs found in this environment's packages."""
    rng = derive_rng(0, "bench")
    folder, size, paragraphs = Path(np.__file__).parents[1], 0, []
    for file in sorted(folder.rglob("*.py")) + sorted(folder.rglob("*.md")):
        if size > megabytes * 1.2e6:
            break
        found = [p.strip() for p in file.read_text(errors="ignore").split("\n\n")]
        paragraphs += [p for p in found if 20 < len(p) < 1500]
        size += sum(map(len, found))
    rng.shuffle(paragraphs)
    with path.open("wb") as f:
        while paragraphs:
            turns, paragraphs = paragraphs[: rng.randint(3, 9)], paragraphs[9:]
            roles = ["system", *["user", "assistant"] * 4]
            messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]
            f.write(orjson.dumps({"data_source": "bench", "messages": messages}) + b"\n")


def encode_all(encoder: Encoder, texts: list[str]) -> int:
    """Tokens of all texts, in batches."""
    return sum(len(encoder.encode(texts[i : i + 8192])[0]) for i in range(0, len(texts), 8192))


def disk(source: Path, target: Path) -> int:
    """Read the corpus and write as many bytes, durably."""
    data = source.read_bytes()
    with target.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--peer", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))


def run(args: argparse.Namespace, folder: Path) -> None:
    """All measurements, one after the other."""
    corpus = args.corpus or folder / "corpus.jsonl"
    if args.corpus is None:
        make_corpus(corpus, args.megabytes)
    tokenizer_dir = args.tokenizer or folder / "tokenizer"
    conversations = list(read_conversations([corpus], default_source="bench"))
    texts, sources = list(texts_of(conversations)), {c.source for c in conversations}
    del conversations
    if args.tokenizer is None:
        save_tokenizer(train_tokenizer(texts[::10], VOCAB_SIZE if len(texts) > 50_000 else 8_000), tokenizer_dir)
    tokenizer = Tokenizer.from_file(str(tokenizer_dir / "tokenizer.json"))
    print(f"{corpus.stat().st_size / 1e6:.1f} MB, {len(texts):,} messages, vocabulary {tokenizer.get_vocab_size():,}")

    measure("Hugging Face tokenizers, one text in 20", lambda: encode_all(HFEncoder(tokenizer), texts[::HF_SHARE]))
    fast = FastokensEncoder(tokenizer)
    ceiling = measure("fastokens alone, first pass", lambda: encode_all(fast, texts))
    measure("disk: read and write the corpus", lambda: disk(corpus, folder / "copy"))

    def ours(name: str) -> int:
        config = PrepareConfig.model_validate(
            {
                "inputs": [{"glob": str(corpus), "source": "bench"}],
                "tokenizer": tokenizer_dir,
                "output": folder / name,
                "sequence_length": 8192,
                "sources": {s: {"allow_all_trained": True, "allow_untrained": True} for s in sources},
                "workers": args.workers,
            }
        )
        return prepare(config).tokens

    ours("warm")  # loads and compiles, as a run of hours would have long done
    whole = measure("prepare: read, render, tokenize, mask, write, pack", lambda: ours("measured"))
    share = (whole.tokens / whole.cpu_s) / (ceiling.tokens / ceiling.cpu_s)
    peak = max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(f"prepare reaches {share:.0%} of the tokenizer's ceiling; peak memory of a process {peak:.0f} MiB")
    if args.peer:
        run_peer(args, corpus, tokenizer_dir, folder, whole)


def run_peer(args: argparse.Namespace, corpus: Path, tokenizer_dir: Path, folder: Path, ours: Measured) -> None:
    """Megatron-LM's tools on the same text (rendered beforehand: they know no messages), tokenizer and workers."""
    rendered = folder / "rendered.jsonl"
    with rendered.open("wb") as f:
        for conversation in read_conversations([corpus]):
            text = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in conversation.messages)
            f.write(orjson.dumps({"text": text}) + b"\n")
    for tool in ("preprocess_data.py", "preprocess_data_fast.py"):
        script = args.peer / "tools" / tool
        if not script.is_file():
            continue
        command = [
            sys.executable, str(script), "--input", str(rendered), "--output-prefix", str(folder / tool),
            "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer_dir),
            "--workers", str(args.workers), "--append-eod",
        ]  # fmt: skip

        def peer(command: list[str] = command) -> int:
            subprocess.run(command, check=True, capture_output=True, cwd=args.peer)
            return ours.tokens

        theirs = measure(f"Megatron-LM {tool}", peer)
        print(f"  ours uses {theirs.cpu_s / ours.cpu_s:.1f} times less CPU per token")


if __name__ == "__main__":
    main()
