"""One rank of a midtraining run: `python -m megatron_osim.worker RUN_DIR --rank R --world-size N --rendezvous URL`.

Reads RUN_DIR/config.yaml (MidtrainConfig). Exit codes: 0 done, 2 configuration or input, 3 a gate failed, 4 stopped
and resumable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from common.config import load
from common.errors import run_main
from common.run_folder import RunFolder
from megatron_osim.arguments import rank_parser
from megatron_osim.config import MidtrainConfig

if TYPE_CHECKING:
    from megatron_osim.evaluation import Evaluate


def main(make_evaluate: Callable[[MidtrainConfig], Evaluate] | None = None) -> None:
    """Parse arguments, join the job, train, leave the job. `make_evaluate` gives what config.generation needs."""
    parser = rank_parser(__doc__)
    parser.add_argument("--timeout-s", type=float, default=600.0, help="deadline of every collective")
    options = parser.parse_args()
    config = load(MidtrainConfig, options.run_dir / "config.yaml")

    from megatron_osim.midtrain import midtrain
    from megatron_osim.runtime import initialize, shutdown

    try:
        ranks = initialize(
            config.parallel,
            seed=config.seed,
            rank=options.rank,
            world_size=options.world_size,
            rendezvous=options.rendezvous,
            timeout_s=options.timeout_s,
        )
        evaluate = make_evaluate(config) if make_evaluate and config.generation else None
        midtrain(RunFolder(options.run_dir), config, ranks, evaluate)
    finally:
        shutdown()


if __name__ == "__main__":
    run_main(main)
