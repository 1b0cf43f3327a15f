"""The queue through which Megatron's background checkpoint writers report, from a process that dies with its parent.

Megatron starts a multiprocessing manager by `spawn`, which imports the main module again (seconds, and an error
without a main guard) and outlives a killed trainer for ever. Ours is forked and asks the kernel to be killed with
its parent.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing.managers import SyncManager

from megatron.core.dist_checkpointing.strategies import filesystem_async

from common.errors import UsageError
from common.processes import signal_at_parents_death


def use_own_results_queue() -> None:
    """Give Megatron's writers our queue; once per process."""
    if not hasattr(filesystem_async, "_results_queue"):
        raise UsageError(
            "Megatron-Core's checkpoint writer has changed", fix="install the versions of constraints.txt"
        )
    if filesystem_async._results_queue is None:
        manager = SyncManager(ctx=multiprocessing.get_context("fork"))
        manager.start(initializer=_die_with_parent)
        filesystem_async._results_queue = manager.Queue()
        # The manager ends when it is garbage collected.
        filesystem_async._osim_manager = manager


def _die_with_parent() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the trainer finishes its save first; its end is ours
    signal_at_parents_death(signal.SIGKILL)
