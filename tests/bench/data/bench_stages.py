"""Where preparation's time goes once it has started, in nanoseconds of CPU per token.

    python -m tests.bench.data.bench_stages --corpus FILE [FILE ...] --tokenizer DIR [--repeats 3]

One worker in this process, after a first preparation of few rows. Times are of the main thread. What a stage does not
name belongs to the line above it that is indented less.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from data_tools import assemble, encoding, publish, units, worker
from data_tools import prepare as preparation
from data_tools.config import PrepareConfig

STAGES: tuple[tuple[str, Any, str], ...] = (
    ("units", preparation, "process_unit"),
    ("  read and decode", worker, "read_batches"),
    ("  choice of rows, rules", worker, "apply_rules"),
    ("  render", worker.BatchRenderer, "render"),
    ("    tokenize", encoding.FastokensEncoder, "encode"),
    ("      join texts", encoding, "join_texts"),
    ("      the library", encoding.FastokensEncoder, "_encode"),
    ("    recheck by the reference", encoding.HFEncoder, "encode"),
    ("    ids and mask to their places", assemble, "_scatter"),
    ("  count and write", worker, "_write"),
    ("    hash and write", units.UnitWriter, "add"),
    ("join units", preparation, "join"),
    ("  copy and hash", publish, "concatenate"),
    ("  pack", publish, "pack_documents"),
    ("remove units", shutil, "rmtree"),
    ("self-check (at the start)", preparation, "_self_check"),
)


class Stages:
    """CPU seconds by stage: replaces each function by one that takes its time."""

    def __init__(self) -> None:
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        for name, owner, attribute in STAGES:
            function = getattr(owner, attribute)
            setattr(
                owner, attribute, self._iterator(name, function) if "read" in name else self._call(name, function)
            )

    def _call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.cpu_s[name] += time.thread_time() - start

        return timed

    def _iterator(self, name: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            step = self._call(name, iter(function(*args, **kwargs)).__next__)
            while True:
                try:
                    yield step()
                except StopIteration:
                    return

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, nargs="+", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.jsonl"
        for corpus in args.corpus:
            if corpus.suffix == ".jsonl":
                with corpus.open("rb") as f:
                    few.write_bytes(b"".join(islice(f, 200)))
                run(few, args.tokenizer, Path(folder) / "few")
        for repeat in range(args.repeats):
            for corpus in args.corpus:
                stages.cpu_s.clear()
                tokens, cpu_s = run(corpus, args.tokenizer, Path(folder) / str(repeat) / corpus.name)
                print(
                    f"{corpus.name}: {tokens / 1e6:.1f} Mtok, {cpu_s:.2f} CPU-s, {cpu_s / tokens * 1e9:.1f} ns/token"
                )
                for name, _, _ in STAGES:
                    print(f"    {name:34s} {stages.cpu_s[name] / tokens * 1e9:6.2f}", flush=True)
                shutil.rmtree(Path(folder) / str(repeat))


def run(corpus: Path, tokenizer: Path, folder: Path) -> tuple[int, float]:
    """Tokens and CPU seconds of one preparation."""
    config = PrepareConfig.model_validate(
        {
            "inputs": [{"glob": str(corpus), "source": "bench"}],
            "tokenizer": tokenizer,
            "output": folder / "shard",
            "sequence_length": 8192,
            "sources": {"bench": {"swap": True}},
        }
    )
    start = time.process_time()
    return preparation.prepare(config).tokens, time.process_time() - start


if __name__ == "__main__":
    main()
