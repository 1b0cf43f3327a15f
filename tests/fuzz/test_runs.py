"""Files of run folders, and what Slurm's commands print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, OsimError
from common.run_folder import RunFolder
from eval.human_likeness.from_run import LIKENESS_FILE, Likeness, read_human
from eval.progress import PROGRESS_FILE, read_progress
from eval.reactions import read_people
from eval.report.run_facts import likeness_sections, provenance, under_way
from eval.results import RESULTS_FILE, Results
from launch.allocation.config import read_allocation
from launch.allocation.roles import Notes
from launch.quickstart.pipeline import MARKER, Pipeline, Stage
from launch.submit import history, slurm
from launch.submit.record import read_record
from launch.submit.shell import LocalShell
from launch.why import _last_metric, _silent_servers
from rl.watch.likeness import read_turns
from tests.eval.samples import make_results, make_task
from tests.fuzz.harness import HOSTILE_TEXTS, files, fuzz, survives, texts

PROGRESS = {
    "time": 1.0,
    "tasks": [
        {
            "task": "hitom", "done": 12, "planned": 100, "mean": 0.5, "half_width": 0.2, "unscored": 1,
            "in_flight_limit": 16, "eta_s": 42.0, "cost_usd": 0.03,
        }
    ],
}  # fmt: skip
MANIFEST = {
    "git": {"commit": "abc", "dirty": True},
    "packages": {"torch": "2"},
    "command": ["osim", "rl"],
    "inputs": {"a": "b"},
}
RESULTS = make_results("name", make_task([1.0, None], task="hitom")).model_dump_json().encode()
PEOPLE = (
    b'{"text": "no!", "after_error": true, "conversation": "a"}\n{"text": "ok", "conversation": "b", "turn": 1}\n'
)


@fuzz(40)
@given(data=files(RESULTS))
def test_any_results_file_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_bytes(data)
    survives(lambda: Results.load(tmp_path))


@fuzz(60)
@given(name=st.sampled_from((PROGRESS_FILE, LIKENESS_FILE, "manifest.json")), data=st.data())
def test_the_page_of_a_run_is_shown_without_what_cannot_be_read(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    valid = {
        PROGRESS_FILE: PROGRESS,
        LIKENESS_FILE: Likeness(name="x").model_dump(mode="json"),
        "manifest.json": MANIFEST,
    }
    (tmp_path / name).write_bytes(data.draw(files(json.dumps(valid[name]).encode())))
    read_progress(tmp_path)
    under_way(tmp_path)
    likeness_sections(tmp_path, "name")
    provenance([tmp_path])


@fuzz(40)
@given(data=files(PEOPLE))
def test_any_file_of_peoples_turns_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "people.jsonl").write_bytes(data)
    for read in (read_human, read_people, read_turns):
        survives(lambda read=read: read(tmp_path / "people.jsonl"))  # type: ignore[misc]


STAGE = b'{"hash": "x", "summary": {"a": "b"}, "seconds": 1.5}'
RECORD = (
    b'{"host": null, "jobs": [{"name": "a", "kind": "rl", "run_dir": "/tmp/x", "job_id": "12", "backend": "sbatch"}]}'
)


@fuzz(30)
@given(data=files(STAGE))
def test_any_marker_of_a_stage_is_believed_or_refused(data: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir(exist_ok=True)
    (folder / MARKER).write_bytes(data)
    survives(lambda: Pipeline(tmp_path, [Stage("one", "One", dict)], say=lambda line: None).run())


@fuzz(40)
@given(data=files(RECORD))
def test_any_record_of_a_launch_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir(exist_ok=True)
    for name in ("record.json", "allocation.json"):
        (tmp_path / "launch" / name).write_bytes(data)
    survives(lambda: read_record(tmp_path))
    survives(lambda: read_allocation(tmp_path))


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "--", "a b", "a;b", "$(x)", ""])
def test_a_host_that_is_an_option_or_a_command_of_ssh_is_refused(host: str, tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "record.json").write_text(json.dumps({"host": host}))
    with pytest.raises(ConfigError, match="host"):
        read_record(tmp_path)


@fuzz(40)
@given(data=files(b'{"urls": ["http://a:1"], "url": "http://a:1", "silent_since": {"http://a:1": 5.0}}'))
def test_any_note_of_a_role_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    notes = tmp_path / "launch" / "attempt-1"
    notes.mkdir(parents=True, exist_ok=True)
    for name in ("server-0.json", "servers.json", "health.json"):
        (notes / name).write_bytes(data)
    survives(lambda: Notes(notes).servers())
    survives(lambda: Notes(notes).wait_for_servers(0.1))
    list(_silent_servers(tmp_path))


@fuzz(30)
@given(data=files(b'{"step": 1, "phase": "rl", "time": 1.5}\n{"step": 2, "phase": "rl", "time": 2.5}\n'))
def test_osim_why_yields_less_and_never_an_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(data)
    (tmp_path / ".lock").write_bytes(data)
    _last_metric(RunFolder(tmp_path))
    RunFolder(tmp_path).owner()


@fuzz(60)
@given(data=files(b"1764150000 12 0 started\n1764150001 12 1 ended 3:\n1764150001 13 0 ended\n"))
def test_any_history_is_a_list_of_events(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir(exist_ok=True)
    history.path_of(tmp_path).write_bytes(data)
    for event in history.read_history(LocalShell(), tmp_path, "12"):
        assert event.ended_with is None or event.ended_with >= 0


@dataclass(frozen=True)
class Answers:
    """A machine whose every command prints the same."""

    text: str
    name: str = "answers"

    def run(self, command: Sequence[str], *, timeout_s: float = 1.0) -> str:
        return self.text


SCONTROL = "JobId=12 JobName=x JobState=RUNNING Reason=None ExitCode=0:0 Restarts=1 NodeList=n1 StartTime=Unknown"
SACCT = "COMPLETED|0:0|n1|2026-01-01T00:00:00\nFAILED by 3|1:9|n2|Unknown"


@fuzz(120)
@given(text=files(SCONTROL.encode()) | files(SACCT.encode()) | texts.map(lambda t: t.encode("utf-8", "replace")))
def test_whatever_slurm_prints_is_a_state(text: bytes, tmp_path: Path) -> None:
    answers = Answers(text.decode(errors="replace"))
    for state in slurm.states(answers, ["12"]).values():  # type: ignore[arg-type]
        state.describe()
        assert isinstance(state.outcome, int)
    found = survives(lambda: slurm.submit(answers, tmp_path / "x.sbatch", ()))  # type: ignore[arg-type]
    assert isinstance(found, OsimError) or found.isdecimal()
    slurm._accounted(answers, "12")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", HOSTILE_TEXTS[:12])
def test_hostile_words_of_slurm_are_a_state(text: str) -> None:
    slurm.parse_scontrol([f"JobId={text} JobState={text} ExitCode={text}:{text} Restarts={text}"])
