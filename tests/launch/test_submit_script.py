"""The job script's decisions, run by bash with small programs in place of srun and scontrol: every way to end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch.plan.cluster import ClusterConfig
from launch.submit.config import SlurmConfig
from launch.submit.jobs import Component, Job, Site, Step
from launch.submit.sbatch import render

SITE = Site(ClusterConfig(), SlurmConfig(gpu_flag="none", max_requeues=3), Path("/tmp"))
SCONTROL = """#!/bin/bash
echo "$@" >>"$FOLDER/calls"
if (($(wc -l <"$FOLDER/calls") <= $REFUSALS)); then
  echo "slurm_requeue error: Socket timed out"
  exit 1
fi
"""
SLEEP = """#!/bin/bash
exec /bin/sleep 0.01
"""
SRUN = """#!/bin/bash
case "$*" in
  *preflight*) body=$PREFLIGHT ;;
  *launch.allocation.server*) body=$SERVER ;;
  *) body=$MAIN ;;
esac
notes=$FOLDER/run/launch/attempt-7-${SLURM_RESTART_COUNT:-0} run=$FOLDER/run bash -c "$body"
"""
SAVE = "mkdir -p $run/checkpoints/step-00000005; "
WAIT = "touch $run/ready; until [ -e $run/stop ]; do sleep 0.05; done; "


@dataclass
class Ended:
    code: int
    requeued: bool
    history: list[str]


@dataclass
class Script:
    """A job in its own folder."""

    folder: Path
    saves_on_request: bool = True
    service: bool = False

    def run(
        self,
        main: str,
        *,
        preflight: str = "true",
        server: str = "true",
        attempt: int = 0,
        send: int | None = None,
        refusals: int = 0,
    ) -> Ended:
        run = self.folder / "run"
        (run / "launch").mkdir(parents=True, exist_ok=True)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("sleep", SLEEP)):
            program = self.folder / name
            program.write_text(text)
            program.chmod(0o755)
        check, step = Step("preflight", "launch.allocation.preflight", (), "check"), Step("rank", "launch", ())
        services = (Step("server", "launch.allocation.server", (), "service"),) if self.service else ()
        node = Component(1, 1, 0, None)
        job = Job(
            "j",
            "midtrain",
            run,
            (node,),
            (check, *services, step),
            "04:00:00",
            self.folder,
            None,
            self.saves_on_request,
        )
        script = self.folder / "job.sh"
        script.write_text(render(job, SITE.slurm))
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FOLDER": str(self.folder),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_RESTART_COUNT": str(attempt),
            "MAIN": main,
            "PREFLIGHT": preflight,
            "SERVER": server,
            "REFUSALS": str(refusals),
        }
        process = subprocess.Popen(["bash", script], env=environment)
        if send is not None:
            deadline = time.monotonic() + 60
            while not (run / "ready").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(send)
        code = process.wait(timeout=60)
        calls = self.folder / "calls"
        log = (run / "launch" / "history").read_text().splitlines()
        asked = (calls.read_text() if calls.exists() else "").count("requeue 7")
        return Ended(code, asked > refusals, [line.split(" ", 3)[3] for line in log])


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


def test_finished_job_ends_0_and_is_not_requeued(script: Script) -> None:
    ended = script.run("true")
    assert (ended.code, ended.requeued, ended.history[-1]) == (0, False, "ended 0")


def test_warning_before_the_time_limit_saves_and_requeues(script: Script) -> None:
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", send=signal.SIGUSR1)
    assert (ended.code, ended.requeued) == (4, True)
    assert ended.history[-1] == "requeued: time limit near, saved step-00000005"


def test_requeue_that_the_controller_does_not_take_at_once_is_asked_for_again(script: Script) -> None:
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", send=signal.SIGUSR1, refusals=3)
    assert (ended.code, ended.requeued) == (4, True)
    assert ended.history[-1] == "requeued: time limit near, saved step-00000005"


def test_requeue_that_is_refused_for_good_is_the_end_and_says_why(script: Script) -> None:
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", send=signal.SIGUSR1, refusals=9)
    assert (ended.code, ended.requeued) == (4, False)
    assert ended.history[-1] == "ended 4: not requeued: slurm_requeue error: Socket timed out"


def test_warning_without_anything_saved_ends_4_instead_of_a_loop(script: Script) -> None:
    ended = script.run(WAIT + "touch $notes/failed-4-rank0; exit 1", send=signal.SIGUSR1)
    assert (ended.code, ended.requeued) == (4, False)


def test_run_that_finishes_after_the_warning_is_done(script: Script) -> None:
    ended = script.run(WAIT + SAVE + "exit 0", send=signal.SIGUSR1)
    assert (ended.code, ended.requeued) == (0, False)


def test_last_allowed_attempt_is_not_requeued(script: Script) -> None:
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", attempt=3, send=signal.SIGUSR1)
    assert (ended.code, ended.requeued, ended.history[-1]) == (4, False, "ended 4: no attempt left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_preemption_and_cancellation_end_4_and_leave_requeueing_to_slurm(script: Script, number: int) -> None:
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", send=number)
    assert (ended.code, ended.requeued) == (4, False)


@pytest.mark.parametrize("code", [2, 3])
def test_configuration_and_gate_errors_keep_their_code_whatever_torchrun_says(script: Script, code: int) -> None:
    ended = script.run(SAVE + f"touch $notes/failed-1-rank1 $notes/failed-{code}-rank0; exit 1")
    assert (ended.code, ended.requeued) == (code, False)


def test_crash_after_a_new_checkpoint_is_tried_again(script: Script) -> None:
    ended = script.run(SAVE + "exit 137")
    assert (ended.code, ended.requeued) == (137, True)


def test_crash_without_a_new_checkpoint_ends_with_its_own_code(script: Script) -> None:
    ended = script.run("exit 7")
    assert (ended.code, ended.requeued, ended.history[-1]) == (7, False, "ended 7")


def test_failed_preflight_ends_the_job_before_the_main_step(script: Script) -> None:
    ended = script.run("touch $run/ran", preflight="touch $notes/failed-3-preflight0; exit 1")
    assert (ended.code, ended.requeued) == (3, False)
    assert not (script.folder / "run" / "ran").exists()


def test_stop_during_the_preflight_is_no_success(script: Script) -> None:
    ended = script.run("touch $run/ran", preflight=WAIT + "exit 0", send=signal.SIGTERM)
    assert ended.code == 4 and not (script.folder / "run" / "ran").exists()


def test_work_that_cannot_save_on_request_is_ended_and_requeued_before_the_limit(tmp_path: Path) -> None:
    script = Script(tmp_path, saves_on_request=False)
    ended = script.run("touch $run/ready; exec /bin/sleep 50", send=signal.SIGUSR1)
    assert (ended.code, ended.requeued) == (4, True)


def test_services_are_told_that_the_main_step_is_over(tmp_path: Path) -> None:
    script = Script(tmp_path, service=True)
    ended = script.run("true", server="until [ -e $notes/over ]; do sleep 0.05; done; touch $run/obeyed")
    assert ended.code == 0 and (tmp_path / "run" / "obeyed").exists()


def test_all_steps_get_one_key_of_the_attempt_and_no_file_or_command_line_has_it(tmp_path: Path) -> None:
    script, keys = Script(tmp_path, service=True), []
    told = tmp_path / "told"
    tell = f'printf %s "$OSIM_ROLLOUT_API_KEY" >>{told}; tr "\\0" " " </proc/$PPID/cmdline >>$run/commands'
    for attempt in range(2):
        script.run(f"until [ -s {told} ]; do sleep 0.05; done; {tell}", server=tell, attempt=attempt)
        key = told.read_text()
        told.unlink()
        assert len(key) == 128 and key[:64] == key[64:], "the server's and the rank's"
        keys.append(key[:64])
        files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
        assert "launch.allocation.server" in "".join(files) and not [text for text in files if keys[-1] in text]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("code", [2, 3, 4])
def test_code_of_a_lost_server_does_not_keep_a_saved_run_from_being_requeued(tmp_path: Path, code: int) -> None:
    script = Script(tmp_path, service=True)
    lost = f"touch $notes/failed-{code}-server0; exit 1"
    ended = script.run(WAIT + SAVE + "touch $notes/failed-4-rank0; exit 1", server=lost, send=signal.SIGUSR1)
    assert (ended.code, ended.requeued) == (4, True)


@pytest.mark.parametrize("code", [2, 3, 4])
def test_code_of_a_lost_server_does_not_hide_that_of_the_main_step(tmp_path: Path, code: int) -> None:
    script = Script(tmp_path, service=True)
    ended = script.run("exit 7", server=f"touch $notes/failed-{code}-server0; exit 1")
    assert (ended.code, ended.requeued, ended.history[-1]) == (7, False, "ended 7")
