"""One rank of an RL run: `python -m rl.worker RUN_DIR --rank R --world-size N --rendezvous URL`.

Started by `osim rl` through launch.local (URL = file:///…), or by torchrun or Slurm (env://). Reads
RUN_DIR/config.yaml. Exit codes: 0 done, 2 wrong configuration, 3 a gate failed, 4 stopped and resumable.
"""

from __future__ import annotations

from common.config import read_yaml, validate
from common.errors import run_main
from common.run_folder import RunFolder
from megatron_osim.arguments import rank_parser
from megatron_osim.runtime import initialize, shutdown
from rl.config import RLConfig
from rl.loop import train
from rl.rollout.api_key import KEY_VARIABLE


def main() -> None:
    """Join the job, run the loop, leave."""
    parser = rank_parser(__doc__)
    parser.add_argument("--rollout-urls", nargs="+", help="SGLang servers of this attempt, not the configured ones")
    args = parser.parse_args()
    run = RunFolder(args.run_dir)
    config = validate(RLConfig, read_yaml(run.config), where=str(run.config))
    if args.rollout_urls:
        # Not part of the configuration: after a requeue the same run has other servers.
        key = config.rollout.api_key_variable or KEY_VARIABLE
        found = {"urls": tuple(args.rollout_urls), "kind": "sglang", "api_key_variable": key}
        rollout = config.rollout.model_copy(update=found)
        config = config.model_copy(update={"rollout": rollout})
    try:
        ranks = initialize(
            config.parallel,
            seed=config.seed,
            rank=args.rank,
            world_size=args.world_size,
            rendezvous=args.rendezvous,
            # Others wait for rank 0 in a collective while it plays, then weighs: its own deadlines must come first.
            timeout_s=3 * config.timeout_s,
        )
        train(config, run, ranks)
    finally:
        shutdown()


if __name__ == "__main__":
    run_main(main)
