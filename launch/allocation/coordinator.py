"""The coordinator of an RL job: `python -m launch.allocation.coordinator RUN NOTES COUNT`, once.

Runs on a node without GPUs where there is one. Waits until all COUNT rollout servers answer and tells the actor their
URLs; then asks every server whether it lives and keeps NOTES/health.json, which `osim why` shows. Exit 3 when the
servers are not there in time; the actor hears why.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import httpx

from common.config import load
from common.errors import GateError, run_main
from common.files import write_json
from launch.allocation.config import recipe_of
from launch.allocation.roles import POLL_S, Notes
from rl.config import RLConfig

PROBE_TIMEOUT_S = 10.0


def main() -> None:
    """Gather, tell, watch; nothing to do when the main step is over before the servers are there."""
    run, notes, count = Path(sys.argv[1]), Notes(Path(sys.argv[2])), int(sys.argv[3])
    config = load(RLConfig, recipe_of(run))
    urls = _gather(notes, count, config.rollout.start_timeout_s)
    if urls:
        notes.publish_all(urls)
        print(f"{count} rollout servers answer: {', '.join(urls)}", flush=True)
        _watch(notes, urls, config.rollout.probe_interval_s)


def _gather(notes: Notes, count: int, timeout_s: float) -> list[str]:
    """All URLs in order of the servers; [] when the job ended meanwhile. Raises GateError at the deadline."""
    deadline = time.monotonic() + timeout_s
    while len(found := notes.servers()) < count:
        if notes.over:
            return []
        ended = sorted(p.name for p in notes.folder.glob("failed-*-server*"))
        if ended or time.monotonic() > deadline:
            missing = ", ".join(str(n) for n in range(count) if n not in found)
            why = f"rollout servers {missing} " + (
                f"ended while starting ({', '.join(ended)})" if ended else f"did not answer within {timeout_s:.0f} s"
            )
            notes.publish_failure(why)
            raise GateError(why, where="rollout servers", fix="see logs/server*.log of the run")
        time.sleep(POLL_S)
    return [found[n] for n in sorted(found)]


def _watch(notes: Notes, urls: list[str], interval_s: float) -> None:
    """Probe until the main step is over."""
    since: dict[str, float] = {}
    next_probe = 0.0
    with httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
        while not notes.over:
            if time.monotonic() >= next_probe:
                for url in urls:
                    if _answers(client, url):
                        since.pop(url, None)
                    else:
                        since.setdefault(url, time.time())
                write_json(
                    notes.folder / "health.json", {"time": time.time(), "servers": urls, "silent_since": since}
                )
                next_probe = time.monotonic() + interval_s
            time.sleep(POLL_S)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    run_main(main)
