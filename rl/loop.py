"""The RL loop: sample, play, score, weigh, train, sync. Every rank runs it; rank 0 also generates.

With `max_staleness: 1`, `collect` has the next step played while this one is trained; `settle` waits for it, because
rollouts of one step come from one version of the weights.

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
from rl.metrics import Clock
from rl.session import Session, is_finished


def train(config: RLConfig, run: RunFolder, ranks: Ranks) -> None:
    """Run, or resume, to `config.steps`. Raises GateError and Interrupted."""
    if is_finished(config, run):
        return
    with Session(config, run, ranks) as session:
        actor = session.actor
        session.sync()
        clock = Clock()
        while session.step < config.steps:
            step = session.step
            with clock.phase("generate"):
                experience = session.collect()
            if experience is None:
                session.save()
                raise Interrupted("stopped", where=f"step {step}", fix="the same command goes on from here")
            with clock.phase("logprobs"):
                batch = actor.prepare(experience.batch)
                gap = session.check_engine(batch)
            with clock.phase("train"):
                update = actor.update(batch[: len(experience.samples)], step=step)
                session.finish_step()
            with clock.phase("settle"):
                session.settle()
            with clock.phase("sync"):
                session.sync()
            session.log(batch, gap, update, clock)
            clock = Clock()  # a save belongs to the time of the next step
            with clock.phase("save"):
                session.save_if_due()
        session.check_final_weights()
        session.export()
