"""Share of an RL step that is neither generation nor training: sync with its proof, saves, weighing, ledger, logs.

The real loop on hitom_mini, embedded engine, a random model of 2 M parameters (the quickstart's size). Target: at
most 10 % (issue 7). The smaller the model, the larger the share: this is the hard case.

    python -m tests.bench.rl.bench_rl_overhead [STEPS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.rl.setup import config, one_rank, train, write_model


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with tempfile.TemporaryDirectory() as name, one_rank(Path(name)) as ranks:
        folder = Path(name)
        model = write_model(folder / "model", hidden=192, layers=4)
        lines = train(config(model, steps=steps), folder / "run", ranks)[1:]  # the first step warms up
    phases = sorted({key for line in lines for key in line if key.startswith("seconds/")})
    print(f"{len(lines)} steps of {lines[0]['reward/n']} rollouts, {lines[0]['train/tokens']} trained tokens")
    for phase in phases:
        print(f"{phase:18} median {statistics.median(line.get(phase, 0.0) for line in lines):7.3f} s")
    shares = [line["utilisation/overhead"] for line in lines]
    print(
        f"outside generation and training: median {statistics.median(shares):.1%}, "
        f"largest {max(shares):.1%} (target 10 %)"
    )


if __name__ == "__main__":
    main()
