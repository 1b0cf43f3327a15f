"""Preparation against its own ceilings and against Megatron-LM's tools, on one file in one run.

    python -m tests.bench.data.bench_throughput [--megabytes 200] [--workers 1]
        [--corpus FILE.jsonl] [--tokenizer DIR]
        [--peer /path/to/Megatron-LM --peer-path /path/to/its/packages]

Ceilings: the disk, and the tokenizer library alone on the messages as strings in memory, called in three exact ways:
as it offers it (a list of texts, special-token text as text), the same with the special tokens taken out of the
tokenizer, and on texts joined by a separator beforehand (preparation's way; joining and cutting are not in that
ceiling, so nobody gets usable ids at that rate). Everything else is measured as a process from start to end, in
CPU-seconds (user + system, children too), the best of `--repeats` alternating runs; wall time needs a quiet machine.
"start-up" is the same command on the first 200 rows.

Without --corpus it makes chat rows of paragraphs from this environment's Python sources; without --tokenizer it
trains one on a fortieth of them. With another tokenizer the text is one that the tokenizer has never seen.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
from data_tools.rows import read_conversations
from data_tools.tokenizer import save_tokenizer, train_tokenizer

ROOT = Path(__file__).resolve().parents[3]
VOCAB_SIZE = 32_000
HF_SHARE = 40
"""The reference library is measured on one text in this many."""
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


NEVER = Measured("", 0, float("inf"), float("inf"), 0.0)
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


def library_alone(renderer: Renderer, texts: list[str]) -> Iterator[tuple[str, Callable[[], int]]]:
    """fastokens on message contents that are strings already, in its first pass: it remembers words."""
    lists = [texts[i : i + 1024] for i in range(0, len(texts), 1024)]
    described = orjson.loads(renderer.plain.to_str())
    library = load(described)
    yield (
        "fastokens, its own call",
        lambda: sum(len(library.encode_batch_flat(x, split_special_tokens=True)[0]) // 4 for x in lists),
    )
    described["added_tokens"] = [t for t in described["added_tokens"] if not t["special"]]
    without = load(described)
    yield (
        "fastokens, special tokens taken out",
        lambda: sum(len(without.encode_batch_flat(x)[0]) // 4 for x in lists),
    )
    joining = FastokensEncoder(renderer.plain).library
    pieces = [[SEPARATOR.join(t for t in x if t.isascii()), *(t for t in x if not t.isascii())] for x in lists]
    separators = sum(text.count(SEPARATOR) for x in pieces for text in x)
    yield (
        "fastokens, texts joined beforehand",
        lambda: sum(len(joining.encode_batch_flat(x)[0]) // 4 for x in pieces) - separators,
    )


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
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
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
    texts = [m.content for c in read_conversations([corpus], default_source="bench") for m in c.messages]
    tokenizer_dir = args.tokenizer or folder / "tokenizer"
    if args.tokenizer is None:
        save_tokenizer(train_tokenizer(texts[::40], VOCAB_SIZE), tokenizer_dir)
    renderer = Renderer.load(tokenizer_dir)
    print(f"{corpus.stat().st_size / 1e6:.1f} MB, {len(texts):,} messages, vocabulary {renderer.vocab_size:,}")
    print(in_memory("disk: read and write the corpus", lambda: disk(corpus, folder / "copy")), flush=True)
    reference = HFEncoder(renderer.plain)
    some = texts[::HF_SHARE]
    print(in_memory("Hugging Face alone, one text in 40", lambda: encode_all(reference, some)), flush=True)
    ceilings: dict[str, Measured] = {}
    for _ in range(args.repeats):
        for name, work in library_alone(renderer, texts):
            ceilings[name] = min(ceilings.get(name, NEVER), in_memory(name, work), key=lambda m: m.cpu_s)
    for ceiling in ceilings.values():
        print(ceiling, flush=True)

    runs = {"prepare (JSONL)": ours(folder, corpus, tokenizer_dir, args.workers)}
    table = folder / "corpus.parquet"
    write_parquet(corpus, table)
    runs["prepare (parquet)"] = ours(folder, table, tokenizer_dir, args.workers)
    if args.peer:
        runs |= peers(args, corpus, tokenizer_dir, folder)
    startup = min((startup_of(folder, corpus, tokenizer_dir, args.workers) for _ in range(2)), key=lambda m: m.cpu_s)
    print(startup, flush=True)
    best: dict[str, Measured] = {}
    for repeat in range(args.repeats):
        for name, one in runs.items():
            if name == "preprocess_data.py" and repeat:
                continue  # minutes long; its noise does not matter at that distance
            measured = one(name)
            print(measured, flush=True)
            if name not in best or measured.cpu_s < best[name].cpu_s:
                best[name] = measured
        report(best, ceilings.values(), startup)


def report(best: dict[str, Measured], ceilings: Iterable[Measured], startup: Measured) -> None:
    """Ratios."""
    for name in ("prepare (JSONL)", "prepare (parquet)"):
        one = best[name]
        steady = one.tokens / (one.cpu_s - startup.cpu_s) / 1e6
        print(f"{name}: {one.rate:.2f} Mtok/CPU-s, {steady:.2f} without start-up ({startup.cpu_s:.2f} s)")
        for ceiling in ceilings:
            print(f"    {one.rate / ceiling.rate:.0%} and {steady / ceiling.rate:.0%} of {ceiling.name}")
    for name, one in best.items():
        if name.startswith("preprocess"):
            print(f"against {name}: {best['prepare (JSONL)'].rate / one.rate:.1f} times its tokens per CPU-second")


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

    found = {}
    for tool, extra in (
        ("preprocess_data_fast.py", ["--use-gigatoken"]),
        ("preprocess_data.py", ["--workers", str(args.workers)]),
    ):
        command = [
            sys.executable, str(args.peer / "tools" / tool), "--input", str(rendered), "--output-prefix", str(output),
            "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer), "--append-eod", *extra,
        ]  # fmt: skip
        found[tool] = lambda name, command=command: process(name, command, tokens, path)
    return found


if __name__ == "__main__":
    main()
