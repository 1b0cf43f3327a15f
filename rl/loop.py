"""The RL loop: sample, play, score, weigh, train, sync. Every rank runs it; rank 0 also generates.

Invariants (tests/rl/test_loop.py):
* a step trains on prompts drawn from (seed, step), on rollouts that are in the ledger, each exactly once;
* a run that was killed anywhere and resumed equals the run that was not: weights, metrics, ledger (embedded engine);
* after every sync the engine holds the trainer's weights (checksums) and agrees on log-probs (gate, exit 3).

On a stop request the state is saved and the run ends with exit 4. An error on rank 0 ends every rank.
"""

from __future__ import annotations

from common.errors import Interrupted
from common.run_folder import RunFolder
from megatron_osim.runtime import Ranks
from rl.config import RLConfig
from rl.gates import check_gap, measure_gap
from rl.metrics import Clock
from rl.session import Session, is_finished


def train(config: RLConfig, run: RunFolder, ranks: Ranks) -> None:
    """Run, or resume, to `config.steps`. Raises GateError and Interrupted."""
    if is_finished(config, run):
        return
    with Session(config, run, ranks) as session:
        actor = session.actor
        session.sync()
        while session.step < config.steps:
            step, clock = session.step, Clock()
            with clock.phase("generate"):
                experience = session.collect()
            if experience is None:
                session.save()
                raise Interrupted("stopped", where=f"step {step}", fix="the same command goes on from here")
            with clock.phase("logprobs"):
                batch = actor.prepare(experience.batch)
                gap = measure_gap(batch)
                check_gap(gap, config.gates, where=f"step {step}")
            with clock.phase("train"):
                update = actor.update(batch[: len(experience.samples)], step=step)
                session.finish_step()
            with clock.phase("sync"):
                session.sync()
            session.log(step, gap, update, clock)
            session.save_if_due()
        session.check_final_weights()
        session.export()
