"""Preparation against its own ceilings and against Megatron-LM's tools, on one file in one run.

    python -m tests.bench.data.bench_throughput [--megabytes 200] [--workers 1] [--repeats 3]
        [--corpus FILE.jsonl [--parquet FILE]] [--tokenizer DIR]
        [--peer /path/to/Megatron-LM --peer-path /path/to/its/packages]

Ceilings: the disk, and the tokenizer library alone on the messages as strings in memory, called in three exact ways:
as it offers it (a list of texts, special-token text as text), the same with the special tokens taken out of the
tokenizer, and on texts joined by a separator beforehand (preparation's way; joining and cutting are not in that
ceiling, so nobody gets usable ids at that rate). Everything else is measured as a process from start to end, in
CPU-seconds (user + system, children too). "start-up" is the same command on the first 200 rows.

Machines change their speed from second to second. So the library's own call is measured before and after each
preparation, on the same texts, and a preparation's share is that of the mean of the two; the median of the repeats
is reported, with all of them. One share is of the whole process, one of what it does after its start-up.

Without --corpus it makes chat rows of paragraphs from this environment's Python sources; without --tokenizer it
trains one on a fortieth of them. With another tokenizer the text is one that the tokenizer has never seen.
--parquet: the corpus as Parquet, if it is there already.

--peer: your own checkout of Megatron-LM; its tools/preprocess_data.py and preprocess_data_fast.py get the rows
already rendered (they know no messages), the same tokenizer and number of workers. They want Python 3.12, triton and
gigatoken; --peer-path is put on their PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import fastokens
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from common.files import write_text
from common.seeds import derive_rng
from data_tools.encoding import Encoder, FastokensEncoder, HFEncoder, one_cpu
from data_tools.joined_texts import SEPARATOR
from data_tools.manifest import Manifest
from data_tools.renderer import Renderer
from data_tools.rows import read_batches, read_conversations
from data_tools.tokenizer import save_tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[3]
VOCAB_SIZE = 32_000
HF_SHARE = 40
"""The reference library is measured on one text in this many; without --tokenizer, one is trained on them."""
STARTUP_ROWS = 200


@dataclass(frozen=True)
class Measured:
    """One run."""

    name: str
    tokens: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    """Largest resident memory of one process."""

    @property
    def rate(self) -> float:
        """Million tokens per CPU-second."""
        return self.tokens / max(self.cpu_s, 1e-9) / 1e6

    def __str__(self) -> str:
        times = f"wall {self.wall_s:7.2f} s  CPU {self.cpu_s:7.2f} s  peak {self.peak_mb:5.0f} MiB"
        return f"{self.name:42s} {self.tokens / 1e6:8.2f} Mtok  {times}  {self.rate:7.2f} Mtok/CPU-s"


def in_memory(name: str, work: Callable[[], int]) -> Measured:
    """Run `work` (returns tokens) in this process."""
    wall, before = time.perf_counter(), os.times()
    tokens = work()
    after = os.times()
    return Measured(name, tokens, time.perf_counter() - wall, sum(after[:2]) - sum(before[:2]), 0.0)


def process(name: str, command: list[str], tokens: Callable[[], int], path: str = "") -> Measured:
    """Run a command to its end."""
    before, wall = os.times(), time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": path or str(ROOT)}
    run = ["/usr/bin/time", "-f", "%M", *command] if GNU_TIME else command
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    after = os.times()
    peak = float(done.stderr.rsplit("\n", 2)[-2]) / 1024 if GNU_TIME else 0.0
    return Measured(name, tokens(), time.perf_counter() - wall, sum(after[2:4]) - sum(before[2:4]), peak)


GNU_TIME = Path("/usr/bin/time").exists()


def make_rows(megabytes: float) -> Iterator[bytes]:
    """Chat rows of paragraphs found in this environment's packages."""
    rng = derive_rng(0, "bench")
    size, paragraphs = 0, []
    for file in sorted(Path(np.__file__).parents[1].rglob("*.py")):
        if size > megabytes * 0.85e6:
            break
        found = [p.strip() for p in file.read_text(errors="ignore").split("\n\n")]
        paragraphs += [p for p in found if 20 < len(p) < 1500]
        size += sum(len(p) for p in found if 20 < len(p) < 1500)
    rng.shuffle(paragraphs)
    at = 0
    while at < len(paragraphs):
        turns = paragraphs[at : at + rng.randint(3, 9)]
        at += len(turns)
        roles = ["system", *["user", "assistant"] * 4]
        messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]
        yield orjson.dumps({"data_source": "wildchat", "messages": messages}) + b"\n"


@dataclass(frozen=True)
class Alone:
    """The tokenizer library on message contents that are strings already, in its first pass: it remembers words."""

    renderer: Renderer
    corpus: Path

    def own_call(self) -> Measured:
        """As the library offers it."""
        library = load(orjson.loads(self.renderer.plain.to_str()))
        return self._measure(
            "own call", lambda x: _count_ids(library.encode_batch_flat(x, split_special_tokens=True))
        )

    def without_special_tokens(self) -> Measured:
        """A tokenizer without special tokens, which leaves nothing to ignore."""
        described = orjson.loads(self.renderer.plain.to_str())
        described["added_tokens"] = [t for t in described["added_tokens"] if not t["special"]]
        library = load(described)
        return self._measure("special tokens taken out", lambda x: _count_ids(library.encode_batch_flat(x)))

    def joined(self) -> Measured:
        """ASCII texts joined by a separator outside of the measured time."""
        library = FastokensEncoder(self.renderer.plain).library
        return self._measure(
            "texts joined beforehand",
            lambda x: _count_ids(library.encode_batch_flat(x)) - sum(text.count(SEPARATOR) for text in x),
            lambda x: [SEPARATOR.join(t for t in x if t.isascii()), *(t for t in x if not t.isascii())],
        )

    def _measure(
        self,
        name: str,
        encode: Callable[[list[str]], int],
        arrange: Callable[[list[str]], list[str]] = lambda texts: texts,
    ) -> Measured:
        """`encode` gives the number of ids; reading and `arrange` are not measured."""
        parts: list[Measured] = []
        for batch in read_batches(self.corpus):
            texts = list(batch.columns.contents)
            lists = [arrange(texts[i : i + 1024]) for i in range(0, len(texts), 1024)]
            parts.append(in_memory(name, partial(sum_over, encode, lists)))
        return Measured(
            f"fastokens alone, {name}",
            sum(part.tokens for part in parts),
            sum(part.wall_s for part in parts),
            sum(part.cpu_s for part in parts),
            0.0,
        )


def sum_over(count: Callable[[list[str]], int], lists: list[list[str]]) -> int:
    """The sum of count(list)."""
    return sum(map(count, lists))


def _count_ids(encoded: tuple[bytes, bytes]) -> int:
    return len(encoded[0]) // 4


def load(described: dict[str, Any]) -> Any:
    """A tokenizer of the fast library on one thread."""
    with one_cpu():
        library = fastokens.Tokenizer.from_json_str(orjson.dumps(described).decode())
        library.encode_batch_flat(["warm up"] * 64)
    return library


def encode_all(encoder: Encoder, texts: list[str]) -> int:
    """Tokens of all texts, in batches."""
    return sum(len(encoder.encode(texts[i : i + 8192]).ids) for i in range(0, len(texts), 8192))


def disk(source: Path, target: Path) -> int:
    """Read the corpus and write as many bytes, durably."""
    with source.open("rb") as f, target.open("wb") as out:
        while block := f.read(1 << 20):
            out.write(block)
        os.fsync(out.fileno())
    target.unlink()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--parquet", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--peer-path", default="")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))


def run(args: argparse.Namespace, folder: Path) -> None:
    """All measurements, one after the other."""
    corpus = args.corpus or folder / "corpus.jsonl"
    if args.corpus is None:
        corpus.write_bytes(b"".join(make_rows(args.megabytes)))
    some = [text for batch in read_batches(corpus) for text in batch.columns.contents[::HF_SHARE]]
    tokenizer_dir = args.tokenizer or folder / "tokenizer"
    if args.tokenizer is None:
        save_tokenizer(train_tokenizer(some, VOCAB_SIZE), tokenizer_dir)
    renderer = Renderer.load(tokenizer_dir)
    print(f"{corpus.stat().st_size / 1e6:.1f} MB, vocabulary {renderer.vocab_size:,}")
    print(in_memory("disk: read and write the corpus", lambda: disk(corpus, folder / "copy")), flush=True)
    reference = HFEncoder(renderer.plain)
    print(in_memory(f"Hugging Face alone, one text in {HF_SHARE}", lambda: encode_all(reference, some)), flush=True)
    table = args.parquet or folder / "corpus.parquet"
    if args.parquet is None:
        write_parquet(corpus, table)
    alone = Alone(renderer, table)
    print(alone.without_special_tokens(), alone.joined(), sep="\n", flush=True)
    if args.peer:
        compare_with_peers(args, corpus, tokenizer_dir, folder)
    shares = {kind: Shares() for kind in ("JSONL", "Parquet")}
    for _ in range(args.repeats):
        for kind, source in (("JSONL", corpus), ("Parquet", table)):
            before = alone.own_call()
            startup = startup_of(folder, corpus, tokenizer_dir, args.workers)
            whole = ours(folder, source, tokenizer_dir, args.workers)(f"prepare ({kind})")
            after = alone.own_call()
            print(before, startup, whole, after, sep="\n", flush=True)
            shares[kind].add(whole, startup, (before.rate + after.rate) / 2)
    for kind, found in shares.items():
        print(f"prepare ({kind}), of the library's own call beside it: {found}")


class Shares:
    """Shares of the ceiling, repeat by repeat."""

    def __init__(self) -> None:
        self.whole: list[float] = []
        self.started: list[float] = []

    def add(self, whole: Measured, startup: Measured, ceiling: float) -> None:
        """One preparation. ceiling: million tokens per CPU-second."""
        self.whole.append(whole.rate / ceiling)
        self.started.append((whole.tokens - startup.tokens) / (whole.cpu_s - startup.cpu_s) / 1e6 / ceiling)

    def __str__(self) -> str:
        def text(shares: list[float]) -> str:
            return f"{median(shares):.0%} ({', '.join(f'{share:.0%}' for share in shares)})"

        return f"{text(self.whole)} from start to end, {text(self.started)} once started"


def compare_with_peers(args: argparse.Namespace, corpus: Path, tokenizer: Path, folder: Path) -> None:
    """Tokens per CPU-second, preparation (JSONL) before and after each peer."""
    prepare = ours(folder, corpus, tokenizer, args.workers)
    for name, peer in peers(args, corpus, tokenizer, folder).items():
        before, other, after = prepare("prepare (JSONL)"), peer(name), prepare("prepare (JSONL)")
        print(before, other, after, sep="\n")
        ratio = (before.rate + after.rate) / 2 / other.rate
        print(f"against {name}: {ratio:.1f} times its tokens per CPU-second", flush=True)


def ours(folder: Path, corpus: Path, tokenizer: Path, workers: int) -> Callable[[str], Measured]:
    """`osim data prepare` with masks, swapped roles and packing."""
    output = folder / "ours" / "shard"
    write_text(folder / "routing.yaml", "bench: {swap: true}\n")
    command = [
        sys.executable, "-m", "launch", "data", "prepare", "--input", str(corpus), "--tokenizer", str(tokenizer),
        "--output", str(output), "--sequence-length", "8192", "--workers", str(workers),
        "--routing", str(folder / "routing.yaml"), "overwrite=true",
    ]  # fmt: skip

    def tokens() -> int:
        made = Manifest.read(output).tokens
        for file in output.parent.iterdir():
            file.unlink()
        return made

    return lambda name: process(name, command, tokens)


def startup_of(folder: Path, corpus: Path, tokenizer: Path, workers: int) -> Measured:
    """The same on a few rows (in as many units as there are workers: each has to start)."""
    few = folder / "few"
    few.mkdir(exist_ok=True)
    with corpus.open("rb") as f:
        rows = list(islice(f, STARTUP_ROWS))
    for worker in range(workers):
        (few / f"{worker}.jsonl").write_bytes(b"".join(rows))
    return ours(folder, few / "*.jsonl", tokenizer, workers)(f"start-up ({STARTUP_ROWS} rows)")


def write_parquet(corpus: Path, table: Path) -> None:
    """The corpus as list<struct{role, content}>, in row groups of 20,000 rows."""
    with corpus.open("rb") as f, pq.ParquetWriter(table, SCHEMA) as writer:
        while rows := [orjson.loads(line) for line in islice(f, 20_000)]:
            kept = [{"data_source": r["data_source"], "messages": r["messages"]} for r in rows]
            writer.write_table(pa.Table.from_pylist(kept, SCHEMA))


MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema([("data_source", pa.string()), ("messages", pa.list_(MESSAGE))])


def peers(
    args: argparse.Namespace, corpus: Path, tokenizer: Path, folder: Path
) -> dict[str, Callable[[str], Measured]]:
    """Megatron-LM's tools on the same text, rendered beforehand."""
    rendered = folder / "rendered.jsonl"
    with rendered.open("wb") as f:
        for conversation in read_conversations([corpus], default_source="bench"):
            text = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in conversation.messages)
            f.write(orjson.dumps({"text": text}) + b"\n")
    path = os.pathsep.join(filter(None, [str(args.peer), args.peer_path]))
    output = folder / "peer"

    def tokens() -> int:
        data = folder / "peer_text_document.bin"
        dtype_bytes = 2 if Renderer.load(tokenizer).vocab_size < 65_500 else 4
        return data.stat().st_size // dtype_bytes

    found: dict[str, Callable[[str], Measured]] = {}
    for tool, extra in (
        ("preprocess_data_fast.py", ["--use-gigatoken"]),
        ("preprocess_data.py", ["--workers", str(args.workers)]),
    ):
        command = [
            sys.executable, str(args.peer / "tools" / tool), "--input", str(rendered), "--output-prefix", str(output),
            "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer), "--append-eod", *extra,
        ]  # fmt: skip
        found[tool] = partial(process, command=command, tokens=tokens, path=path)
    return found


if __name__ == "__main__":
    main()
