"""What Slurm and the run folder say becomes one line, one exit code and the words of the process that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError, UsageError
from launch.submit import follow
from launch.submit.follow import Status
from launch.submit.history import read_history
from launch.submit.record import Record, SubmittedJob, read_record, write_record
from launch.submit.shell import LocalShell, ShellError
from launch.submit.slurm import JobState, parse_scontrol, sbatch_command

RUNNING = (
    "JobId=12 JobName=osim-mid UserId=me(1) Priority=1 JobState=RUNNING Reason=None Dependency=(null) Requeue=1 "
    "Restarts=2 BatchFlag=1 ExitCode=0:0 StartTime=2026-11-23T12:00:00 NodeList=n[1-2] Comment=two words here Power="
)


def test_running_job_says_where_and_which_attempt() -> None:
    state = parse_scontrol([RUNNING])
    assert state is not None and state.alive
    assert state.describe() == "RUNNING on n[1-2], attempt 3"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("Resources", "no free nodes yet"), ("DependencyNeverSatisfied", "never starts"), ("Odd", "PENDING (Odd)")],
)
def test_waiting_job_says_why(reason: str, told: str) -> None:
    line = f"JobId=1 JobState=PENDING Reason={reason} Restarts=0 ExitCode=0:0 StartTime=Unknown NodeList=(null) x=y"
    state = parse_scontrol([line])
    assert state is not None and told in state.describe()


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (JobState("COMPLETED"), 0),
        (JobState("FAILED", 3), 3),
        (JobState("FAILED", 0, signal=9), 1),
        (JobState("OUT_OF_MEMORY", 0, signal=125), 1),
        (JobState("TIMEOUT"), 4),
        (JobState("CANCELLED"), 4),
        (JobState("NODE_FAIL"), 4),
    ],
)
def test_end_of_a_job_has_an_exit_code(state: JobState, code: int) -> None:
    assert not state.alive and state.outcome == code


def test_job_of_several_parts_is_as_good_as_its_worst() -> None:
    def part(state: str, nodes: str, code: str = "0:0") -> str:
        return f"JobId=1 JobState={state} Reason=None ExitCode={code} NodeList={nodes} x=y"

    array = parse_scontrol([part("COMPLETED", "n1"), part("FAILED", "n2", "2:0")])
    assert array is not None and (array.state, array.outcome, array.nodes) == ("FAILED", 2, "n1,n2")
    running = parse_scontrol([part("PENDING", "(null)"), part("RUNNING", "n1"), part("FAILED", "n2", "2:0")])
    assert running is not None and running.state == "RUNNING"


def test_dependencies_are_on_the_command_line_and_a_hopeless_job_is_removed() -> None:
    assert sbatch_command(Path("/r/j.sh"), ["7", "8"]) == [
        "sbatch", "--parsable", "--dependency=afterok:7:8", "--kill-on-invalid-dep=yes", "/r/j.sh",
    ]  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> SubmittedJob:
    for name in ("logs", "launch"):
        (tmp_path / name).mkdir()
    return SubmittedJob(name="mid", kind="midtrain", run_dir=tmp_path, job_id="7", backend="sbatch")


def test_process_whose_error_has_a_meaning_explains_the_failure_before_those_that_died_of_it(
    job: SubmittedJob, tmp_path: Path
) -> None:
    notes = tmp_path / "launch" / "attempt-7-0"
    notes.mkdir()
    for name in ("failed-1-rank1", "failed-3-rank0"):
        (notes / name).touch()
    (tmp_path / "logs" / "rank0.log").write_text("step 1\nerror: run: step 5 refused\n  fix: look at it\n")
    (tmp_path / "logs" / "rank1.log").write_text("Traceback\nConnection closed by peer\n")
    told = follow.explain(LocalShell(), Status(job, JobState("FAILED", 3), None))
    assert told == "rank0: run: step 5 refused\n  fix: look at it"


def test_lost_server_explains_a_run_only_when_nothing_else_failed(job: SubmittedJob, tmp_path: Path) -> None:
    notes = tmp_path / "launch" / "attempt-7-0"
    notes.mkdir()
    for name in ("failed-3-server0", "failed-1-rank0"):
        (notes / name).touch()
    (tmp_path / "logs" / "server0.log").write_text("error: server 0: gone\n")
    (tmp_path / "logs" / "rank0.log").write_text("Traceback\nValueError: the bug\n")
    one = Status(job, JobState("FAILED", 1), None)
    assert "the bug" in follow.explain(LocalShell(), one)
    (notes / "failed-1-rank0").unlink()
    assert follow.explain(LocalShell(), one) == "server0: server 0: gone"


def test_waiting_survives_a_question_that_fails_but_not_a_long_silence(
    job: SubmittedJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*answers: JobState | None) -> None:
        left = iter(answers)

        def status(record: Record) -> list[Status]:
            if (state := next(left)) is None:
                raise ShellError("connection refused", where="login")
            return [Status(job, state, None)]

        monkeypatch.setattr(follow, "status", status)

    told: list[str] = []
    record, running = Record(jobs=(job,)), JobState("RUNNING", nodes="n1")
    asked(running, None, None, JobState("COMPLETED"))
    follow.wait(record, lambda one: told.append(one.state.state), poll_s=0.0)
    assert told == ["RUNNING", "COMPLETED"]
    asked(running, None)
    with pytest.raises(ShellError):
        follow.wait(record, lambda one: None, poll_s=0.0, silence_s=-1.0)
    asked(None)
    with pytest.raises(ShellError):
        follow.wait(record, lambda one: None, poll_s=0.0)


def test_ctrl_c_half_way_cancels_what_was_submitted_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch.plan.cluster import ClusterConfig
    from launch.submit import slurm, submit
    from launch.submit.config import SlurmConfig
    from launch.submit.jobs import Job, Site
    from launch.submit.nemo import Choice

    site = Site(ClusterConfig(), SlurmConfig(gpu_flag="none"), tmp_path)
    made = [Job(n, "convert", tmp_path / n, (site.cpu_node(),), (), "00:30:00", tmp_path) for n in ("a", "b")]
    planned = [submit.Planned(job, None, "#!/bin/bash\n", Choice(False, "as configured")) for job in made]
    cancelled: list[str] = []

    def sbatch(_shell: object, script: Path, _after: object) -> str:
        if script.stem == "b":
            raise KeyboardInterrupt
        return "41"

    monkeypatch.setattr(slurm, "submit", sbatch)
    monkeypatch.setattr(slurm, "cancel", lambda _shell, ids: cancelled.extend(ids))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        submit.submit(planned, site, tmp_path, said.append)
    assert cancelled == ["41"] and "cancelled: job 41" in said


def test_crash_is_explained_by_its_last_lines_and_a_silent_one_by_the_job_script(
    job: SubmittedJob, tmp_path: Path
) -> None:
    (tmp_path / "logs" / "mid-7.log").write_text("slurmstepd: error: Detected 1 oom-kill event(s)\n")
    one = Status(job, JobState("OUT_OF_MEMORY"), None)
    assert "oom-kill" in follow.explain(LocalShell(), one)
    notes = tmp_path / "launch" / "attempt-7-1"
    notes.mkdir()
    (notes / "failed-1-rank3").touch()
    (tmp_path / "logs" / "rank3.log").write_text("\n".join(f"line {n}" for n in range(100)))
    told = follow.explain(LocalShell(), one)
    assert "exit code 1" in told and "line 99" in told and "line 79" not in told


def test_job_that_slurm_has_forgotten_is_known_from_its_history(job: SubmittedJob, tmp_path: Path) -> None:
    (tmp_path / "launch" / "history").write_text(
        "10 7 0 started on n1\n20 7 1 ended 4: no attempt left\n21 8 0 ended 0\n"
    )
    events = read_history(LocalShell(), tmp_path, "7")
    assert [e.attempt for e in events] == [0, 1]
    assert Status(job, JobState("UNKNOWN"), events[-1]).last == events[-1] and events[-1].ended_with == 4


def test_record_is_read_back_and_a_folder_without_one_says_so(job: SubmittedJob, tmp_path: Path) -> None:
    record = Record(host="login", jobs=(job,))
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    with pytest.raises(UsageError, match="nothing was launched here"):
        read_record(tmp_path / "other")


def test_logs_are_named_when_a_wrong_one_is_asked_for(job: SubmittedJob, tmp_path: Path) -> None:
    (tmp_path / "logs" / "rank0.log").write_text("a\nb\nc\n")
    record = Record(jobs=(job,))
    assert follow.read_logs(record, "rank0", 2)[0].text == "b\nc"
    with pytest.raises(UsageError, match="rank9"):
        follow.read_logs(record, "rank9", 2)


def test_shell_tells_a_missing_program_and_a_failing_one_apart() -> None:
    with pytest.raises(ShellError, match="no such program"):
        LocalShell().run(["no-such-program-here"])
    with pytest.raises(ShellError, match="on purpose"):
        LocalShell().run(["bash", "-c", "echo on purpose >&2; exit 3"])
    with pytest.raises(ShellError, match="no answer within"):
        LocalShell().run(["sleep", "5"], timeout_s=0.1)


def run_rank(tmp_path: Path, code: str, **environment: str) -> int:
    """The wrapper around a module of one line."""
    module = tmp_path / "planted.py"
    module.write_text(code)
    for name in ("logs", "notes"):
        (tmp_path / name).mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "launch.allocation.rank",
        str(tmp_path),
        str(tmp_path / "notes"),
        "rank",
        "planted",
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    return subprocess.run(command, env=env | environment | {"PYTHONPATH": path}, check=False).returncode


def test_every_process_logs_to_its_own_file_and_leaves_its_exit_code(tmp_path: Path) -> None:
    assert run_rank(tmp_path, "print('hello'); raise SystemExit(4)", RANK="3") == 4
    assert (tmp_path / "logs" / "rank3.log").read_text() == "hello\n"
    assert [p.name for p in (tmp_path / "notes").iterdir()] == ["failed-4-rank3"]
    assert run_rank(tmp_path, "pass", SLURM_PROCID="0", SLURM_ARRAY_TASK_ID="2") == 0
    assert (tmp_path / "logs" / "rank0-task2.log").exists()


def test_crash_leaves_its_traceback_and_code_1(tmp_path: Path) -> None:
    assert run_rank(tmp_path, "1 / 0") == 1
    assert "ZeroDivisionError" in (tmp_path / "logs" / "rank0.log").read_text()
    assert (tmp_path / "notes" / "failed-1-rank0").exists()


def test_record_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "record.json").write_text('{"jobs": [], "surprise": 1}')
    with pytest.raises(ConfigError, match="surprise"):
        read_record(tmp_path)
