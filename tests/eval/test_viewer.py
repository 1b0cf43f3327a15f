"""The viewer serves one run, on this machine, and nothing else."""

from __future__ import annotations

import asyncio
import http.client
import socket
from pathlib import Path

import pytest

from common.config import Config
from common.errors import UsageError
from common.run_folder import RunFolder
from envs.ledger import Ledger
from eval.config import EvalConfig
from eval.human_likeness.from_run import LIKENESS_FILE, Likeness
from eval.progress import ProgressFile
from eval.report import Evaluations, Transcripts
from eval.report.from_run import report_runs, run_sections, transcript_runs
from eval.results import Results
from eval.run import Progress, run
from eval.store import LedgerStore
from eval.viewer import RunViewer, serve
from tests.eval.samples import contestants


class Made(Config):
    name: str = "made"


def evaluated(folder: Path, accuracy: float, name: str) -> Path:
    made = RunFolder.prepare(folder, Made())
    for step in range(3):
        made.log_metrics(step, "midtrain", {"loss": 3.0 - step})
    config = EvalConfig(suite="hitom", limit=10, baseline_rows=0)
    with Ledger(made.ledger) as ledger:
        results = asyncio.run(run(config, contestants(accuracy, name), LedgerStore(ledger), name=name))
    results.save(folder / "results.json")
    return folder


def get(address: str, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20)
    connection.request("GET", path, headers={"Host": host} if host else {})
    reply = connection.getresponse()
    body = reply.read().decode("utf-8", "replace")
    connection.close()
    return reply.status, body


def test_report_of_two_run_folders_has_curves_results_comparison_and_both_transcripts(tmp_path: Path) -> None:
    before, after = evaluated(tmp_path / "before", 0.1, "before"), evaluated(tmp_path / "after", 0.9, "after")
    stats = report_runs([before, after], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert stats.episodes_total == stats.episodes_shown == 20
    assert "before → after" in html and "midtrain" in html and "better" in html
    kinds = [type(s).__name__ for s in run_sections([before, after])]
    assert kinds.count("Curves") == 2 and {"Evaluations", "Comparisons", "Transcripts"} <= set(kinds)


def test_live_page_changes_while_the_run_goes_on(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    with serve(RunViewer(made.path)) as address:
        status, page = get(address, "/")
        assert status == 200 and "Provenance" in page and 'data-live="yes"' in page
        version = get(address, "/version")[1]
        made.log_metrics(0, "midtrain", {"loss": 3.0})
        made.log_metrics(1, "midtrain", {"loss": 2.0})
        assert get(address, "/version")[1] != version
        assert "midtrain" in get(address, "/")[1]


def test_a_running_evaluation_shows_how_far_each_task_is(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    with made.lock(), serve(RunViewer(made.path)) as address:
        progress = ProgressFile(made.path)
        before = get(address, "/version")[1]
        progress.update(Progress("hitom", 12, 100, 0.58, 0.21, 1, 16, 42.0, 0.03))
        assert get(address, "/version")[1] != before
        page = get(address, "/")[1]
        assert "Under way" in page and "0.580 ± 0.210" in page and "92.3%" in page and "42 s left" in page
        progress.remove()
        assert "Under way" not in get(address, "/")[1]


def test_a_killed_evaluation_is_not_shown_as_under_way(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    with serve(RunViewer(made.path)) as address:
        with made.lock():
            ProgressFile(made.path).update(Progress("hitom", 12, 100, 0.58, 0.21, 1, 16, 42.0, 0.03))
            running = get(address, "/version")[1]
            assert "Under way" in get(address, "/")[1]
        assert get(address, "/version")[1] != running
        page = get(address, "/")[1]
        assert "Under way" not in page and "Stopped before the end" in page and "42 s left" not in page
        with made.lock():
            ProgressFile(made.path)
        assert "Stopped before the end" not in get(address, "/")[1]


def test_two_evaluations_of_one_model_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "greedy", 0.2, "same"), evaluated(tmp_path / "sampled", 0.9, "same")
    sections = run_sections([a, b])
    (evaluations,) = [s for s in sections if isinstance(s, Evaluations)]
    (transcripts,) = [s for s in sections if isinstance(s, Transcripts)]
    names = ["same (greedy)", "same (sampled)"]
    assert [r.name for r in evaluations.results] == names and [r.name for r in transcripts.runs] == names


def test_rows_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", 0.5, "x")
    (run_,) = transcript_runs(folder)
    ids = [e.episode.row.id for e in run_.episodes]
    assert len(ids) == 10 and [i[-2:] for i in ids[:5]] == ["-0", "-1", "-2", "-3", "-4"]


def test_what_was_not_evaluated_and_controls_are_told(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", 0.5, "x")
    results = Results.load(folder).model_copy(
        update={"absent": {"coser": "no <file>"}, "control": "imposter", "index": None, "index_refused": "low"}
    )
    results.save(folder / "results.json")
    report_runs([folder], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "1 tasks of the suite were not evaluated" in html and "no &lt;file&gt;" in html
    assert "personas were swapped" in html and "no SOUL-Index: low" in html


def test_runs_that_cannot_be_compared_still_have_a_report(tmp_path: Path) -> None:
    a, b = evaluated(tmp_path / "a", 0.5, "a"), evaluated(tmp_path / "b", 0.5, "b")
    other = Results.load(b)
    task = other.tasks[0].model_copy(update={"version": 99})
    other.model_copy(update={"tasks": (task,)}).save(b / "results.json")
    report_runs([a, b], tmp_path / "report.html")
    assert "These runs cannot be compared" in (tmp_path / "report.html").read_text()


def test_measured_likeness_is_a_part_of_the_report(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", 0.5, "x")
    (folder / LIKENESS_FILE).write_text(Likeness(name="x", notes=("Nothing <b>to</b> measure.",)).model_dump_json())
    report_runs([folder], tmp_path / "report.html")
    assert "Nothing &lt;b&gt;to&lt;/b&gt; measure." in (tmp_path / "report.html").read_text()


def test_only_files_of_the_run_are_served(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    (tmp_path / "secret.txt").write_text("secret")
    (made.path / "link.txt").symlink_to(tmp_path / "secret.txt")
    (made.logs / "rank0.log").write_text("log line")
    (made.path / "weights.bin").write_text("weights")
    with serve(RunViewer(made.path)) as address:
        assert get(address, "/logs/rank0.log") == (200, "log line")
        assert "made" in get(address, "/config.yaml")[1]
        for path in (
            "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/link.txt", "//etc/passwd", "/.lock",
            "/logs", "/logs/../../secret.txt", "/weights.bin", "/ledger/ledger.sqlite", "/%00", "/absent.json",
        ):  # fmt: skip
            status, body = get(address, path)
            assert (status, "secret" in body) == (404, False), path


def test_pages_of_other_names_are_refused(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    with serve(RunViewer(made.path)) as address:
        assert get(address, "/", host="attacker.example")[0] == 403
        assert get(address, "/", host="localhost:1")[0] == 200


def test_a_taken_port_and_a_folder_that_is_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        RunViewer(tmp_path)
    made = RunFolder.prepare(tmp_path / "run", Made())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="cannot listen"), serve(RunViewer(made.path), taken.getsockname()[1]):
            pass


def test_a_broken_results_file_is_explained_on_the_page(tmp_path: Path) -> None:
    made = RunFolder.prepare(tmp_path / "run", Made())
    (made.path / "results.json").write_text("{")
    with serve(RunViewer(made.path)) as address:
        status, page = get(address, "/")
    assert status == 200 and "not valid JSON" in page
