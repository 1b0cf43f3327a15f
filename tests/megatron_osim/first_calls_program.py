"""Runs in one rank: the start of a training process, from joining the job to the first update."""

from __future__ import annotations

import sys
from pathlib import Path

from common.files import write_json
from megatron_osim.config import ParallelConfig
from megatron_osim.train_step import forward_logprobs, token_mean_loss, train_step
from tests.first_calls import FirstCalls
from tests.megatron_osim.samples import make_trainer, packed, tiny
from tests.megatron_osim.spmd import layout


def main(out: Path) -> None:
    with FirstCalls() as calls, layout(ParallelConfig(), 1, out / "rendezvous") as ranks:
        assert ranks is not None
        trainer = make_trainer(ranks, tiny())
        forward_logprobs(trainer, [packed(1)])
        train_step(trainer, [packed(1)], token_mean_loss, lr=1e-3)
    write_json(out / "elements.json", calls.elements)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
