"""Packing many lognormal lengths at 24,576 tokens: seconds, memory, fill, segments per bin.

    python -m tests.bench.data.bench_packing [--documents 2e6]      # the corpus has 21.4e6

Acceptance at 21.4e6: at most 8 s and 1 GiB, at least 99.95 % full, at most a few hundred documents per bin.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from data_tools.packing import pack
from data_tools.verify import bin_tokens

CAPACITY = 24_576


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=float, default=2e6)
    count = int(parser.parse_args().documents)
    rng = np.random.default_rng(0)
    lengths = np.empty(count, np.int32)
    for start in range(0, count, 1 << 20):
        part = lengths[start : start + (1 << 20)]
        part[:] = np.clip(np.exp(rng.normal(5.70, 0.95, len(part))), 8, CAPACITY)
    pack(lengths[:1000], CAPACITY, seed=0)  # compile
    wall, cpu = time.perf_counter(), time.process_time()
    packing = pack(lengths, CAPACITY, seed=0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    segments = np.diff(packing.offsets)
    fill = bin_tokens(packing, lengths).sum() / (packing.num_bins * CAPACITY)
    print(f"documents {count:,}  tokens {lengths.sum(dtype=np.int64) / 1e9:.2f} B  bins {packing.num_bins:,}")
    print(f"wall {wall:.2f} s  CPU {cpu:.2f} s  peak memory {peak_mb:.0f} MiB")
    print(f"fill {fill:.4%}  segments per bin: mean {segments.mean():.1f}, p99 {np.percentile(segments, 99):.0f}, "
          f"max {segments.max()}")  # fmt: skip


if __name__ == "__main__":
    main()
