"""`osim doctor` on the machine the tests run on, and on planted findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch import cli, doctor


def test_doctor_reports_every_subject_and_succeeds_where_the_tests_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")  # the discard port: nothing listens
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-the-user")
    findings = list(doctor.examine(tmp_path / "not" / "yet"))
    subjects = [f.subject for f in findings]
    for subject in (
        "Python",
        "torch",
        "megatron-core",
        "Transformer Engine",
        "apex",
        "SGLang",
        "GPUs",
        "Slurm",
        "Judge endpoint",
        "Disk",
        "Memory",
    ):
        assert subject in subjects
    assert not [f for f in findings if f.state == "missing"]
    judge = next(f for f in findings if f.subject == "Judge endpoint")
    assert judge.state == "absent" and "127.0.0.1:9" in judge.detail and judge.fix
    assert "sk-secret" not in repr(findings)


def test_the_unrelated_package_named_apex_is_called_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = doctor._apex()
    assert finding.state == "absent" and finding.fix == "pip uninstall apex"
    (tmp_path / "apex" / "multi_tensor_apply").mkdir()
    assert doctor._apex().state == "ok"


def test_something_required_and_missing_exits_2_and_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = doctor.Finding("torch", "missing", "not installed", "make setup")
    monkeypatch.setattr(doctor, "examine", lambda _folder: iter([lacks]))
    with pytest.raises(SystemExit) as ended:
        cli.run(["doctor"])
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert "✗ torch" in shown.out and "make setup" in shown.out and "missing: torch" in shown.err
