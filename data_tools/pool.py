"""Worker processes that do units of work: started together, watched, replaced where they die.

On Linux they are forked: so they have the tokenizers that their parent loaded, which takes seconds. No thread of it
uses those. When a worker dies, or none finishes a unit for `unit_timeout_s`, all are replaced and their units tried
once more; then the run fails.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from common.errors import DataError, Interrupted
from data_tools.encoding import reference_without_threads
from data_tools.units import Unit, UnitRecord
from data_tools.worker import Job, process_unit, start_worker

logger = logging.getLogger(__name__)
FORKS = sys.platform == "linux"
UNIT_ATTEMPTS = 2
IDLE_EXIT_S = 5.0
"""Within it a worker that has nothing left to do ends, or is killed."""


def run_in_pool(job: Job, units: Sequence[Unit], lock: int) -> Generator[tuple[Unit, UnitRecord], None, None]:
    """Finished units as they come; when it is closed no worker is left. lock: see start_worker.

    Raises DataError for a unit whose process died twice, Interrupted after Ctrl-C.
    """
    with reference_without_threads():
        deaths: Counter[int] = Counter()
        waiting = list(reversed(units))
        while waiting:
            in_flight: dict[Future[UnitRecord], Unit] = {}
            others = multiprocessing.active_children()
            pool = ProcessPoolExecutor(
                min(job.config.workers, len(waiting)),
                mp_context=multiprocessing.get_context("fork" if FORKS else "spawn"),
                initializer=start_worker,
                initargs=(os.getpid(), lock if FORKS else None),
            )
            try:
                while waiting or in_flight:
                    # A short queue: after a death only units that were running or next are in doubt.
                    while waiting and len(in_flight) < 2 * job.config.workers:
                        # Submitting to a pool that just broke raises: the unit must still be in one of the two lists.
                        in_flight[pool.submit(process_unit, job, waiting[-1])] = waiting[-1]
                        waiting.pop()
                    patience_s = job.config.unit_timeout_s
                    done = wait(in_flight, timeout=patience_s, return_when=FIRST_COMPLETED).done
                    if not done:
                        # Stopped or stuck in a file system: as if they had died.
                        logger.warning("no unit was finished in %g s: all workers are replaced", patience_s)
                        _kill_workers(others)
                    for future in done:
                        record = future.result()
                        yield in_flight.pop(future), record
            except BrokenProcessPool as e:
                for unit in in_flight.values():
                    deaths[unit.index] += 1
                    if deaths[unit.index] == UNIT_ATTEMPTS:
                        raise DataError(
                            "a worker process died twice (or stood still) over this part (killed for memory?)",
                            where=f"{unit.path}, {unit.span}",
                            fix="use fewer workers; the same command resumes with the finished units",
                        ) from e
                waiting += sorted(in_flight.values(), key=lambda u: -u.index)
            except KeyboardInterrupt:
                raise interrupted() from None
            finally:
                # Running units are finished (seconds) and kept; queued ones are not started.
                _end(pool, others, job.config.unit_timeout_s if in_flight else IDLE_EXIT_S)


def _end(pool: ProcessPoolExecutor, others: Sequence[BaseProcess], patience_s: float) -> None:
    """Return when no worker is left: those that have not ended in time are killed."""
    ending = threading.Thread(target=lambda: pool.shutdown(wait=True, cancel_futures=True), name="pool-end")
    ending.start()
    ending.join(patience_s)
    if ending.is_alive():
        _kill_workers(others)
        ending.join()


def _kill_workers(others: Sequence[BaseProcess]) -> None:
    """Of the pool that is the only one of this process, `others` aside."""
    for process in multiprocessing.active_children():
        if process not in others:
            process.kill()


def interrupted() -> Interrupted:
    """What Ctrl-C becomes."""
    return Interrupted("stopped; finished units are kept", fix="the same command resumes")
