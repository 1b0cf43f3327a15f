"""The only program that imports nemo_run: `python nemo_run_client.py submit|preview`, JSON on stdin and stdout.

Runs in NeMo-Run's own environment, so it imports nothing of osim. `submit` answers {"job_id"}, `preview` {"sbatch"}.
Any failure is a traceback and a non-zero end, which `launch.submit.nemo` reports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def experiment(message: dict[str, Any], home: str) -> Any:
    """One task that runs the given script."""
    os.environ["NEMORUN_HOME"] = home  # read when nemo_run is imported
    import nemo_run as run

    executor = run.SlurmExecutor(
        **{name: value for name, value in message["executor"].items() if value is not None},
        additional_parameters=message["additional_parameters"],
        # An own job_dir would be copied nowhere by a local tunnel, and sbatch would not find the script.
        tunnel=run.LocalTunnel(job_dir=""),
        packager=run.Packager(),
        poll_estimated_start_time=False,
        retries=0,
    )
    made = run.Experiment(message["name"], executor=executor, log_level="ERROR")
    made.__enter__()
    made.add(run.Script(path=message["script"]), executor=executor, name=message["name"], tail_logs=False)
    return made


def submit(message: dict[str, Any]) -> dict[str, str]:
    Path(message["home"]).mkdir(parents=True, exist_ok=True)
    made = experiment(message, message["home"])
    made.run(detach=True)
    return {"job_id": made.jobs[0].handle.rpartition("/")[2]}


def preview(message: dict[str, Any]) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as home:
        made = experiment(message, home)
        made.dryrun(log=False, delete_exp_dir=False)
        (script,) = Path(home).rglob("*_sbatch.sh")
        return {"sbatch": script.read_text().replace(home, message["home"])}


if __name__ == "__main__":
    answer = {"submit": submit, "preview": preview}[sys.argv[1]](json.load(sys.stdin))
    print("\n" + json.dumps(answer), flush=True)
    os._exit(0)  # nemo_run would wait for what it detached
