"""The checks before the expensive part: what each measures, when it fails, and what it then says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from common.files import hash_file, read_json
from envs.client.config import ClientConfig, Endpoint
from launch.allocation import checks
from launch.allocation.checks import DataFile
from launch.allocation.config import AllocationConfig, write_allocation
from launch.allocation.roles import Notes
from launch.submit.config import PreflightConfig
from rl.rollout.config import RolloutConfig

KEY = "sk-secret-of-the-user"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {KEY}"
        known = self.path in ("/v1/models", "/v1/model_info")
        self.send_response(200 if allowed and known else 401 if not allowed else 500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def judge(url: str) -> ClientConfig:
    return ClientConfig(judge=Endpoint(model="m", base_url=url, api_key_variable="JUDGE_KEY"))


def test_judge_that_answers_passes_and_the_key_is_never_shown(endpoint: str) -> None:
    (good,) = checks.endpoints(judge(endpoint), {"JUDGE_KEY": KEY}, 5.0)
    (refused,) = checks.endpoints(judge(endpoint), {"JUDGE_KEY": "wrong"}, 5.0)
    (absent,) = checks.endpoints(judge(endpoint), {}, 5.0)
    assert good.ok and not refused.ok and not absent.ok
    assert "key is refused" in refused.measured and "JUDGE_KEY is not set" in absent.measured
    assert KEY not in repr([good, refused, absent])


def test_judge_that_is_not_there_or_fails_does_not_pass(endpoint: str) -> None:
    (nobody,) = checks.endpoints(judge("http://127.0.0.1:9/v1"), {"JUDGE_KEY": KEY}, 5.0)
    (broken,) = checks.endpoints(judge(f"{endpoint}/other"), {"JUDGE_KEY": KEY}, 5.0)
    assert not nobody.ok and "ConnectError" in nobody.measured
    assert not broken.ok and "HTTP 500" in broken.measured


def test_rollout_servers_given_by_url_must_take_the_named_key(endpoint: str) -> None:
    named = RolloutConfig(urls=(endpoint, f"{endpoint}/"), api_key_variable="THEIR_KEY")
    good = list(checks.rollout_servers(named, {"THEIR_KEY": KEY}, 5.0))
    refused, _ = checks.rollout_servers(named, {"THEIR_KEY": "wrong"}, 5.0)
    (absent,) = checks.rollout_servers(named, {}, 5.0)
    assert [check.ok for check in good] == [True, True] and not refused.ok and not absent.ok
    assert "key is refused" in refused.measured and "THEIR_KEY is not set" in absent.measured
    assert KEY not in repr([good, refused, absent])
    assert not list(checks.rollout_servers(RolloutConfig(api_key_variable="THEIR_KEY"), {}, 5.0)), "none by URL"


def test_disk_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    assert checks.disk_speed(tmp_path, 2, 0.001).ok
    slow = checks.disk_speed(tmp_path, 2, 1e9)
    assert not slow.ok and slow.exit_code == 3 and "MiB/s" in slow.measured
    missing = checks.disk_speed(tmp_path / "nowhere", 1, 1.0)
    assert not missing.ok and missing.exit_code == 2
    assert not list(tmp_path.iterdir())
    assert checks.disk_space(tmp_path, 0.0).ok and not checks.disk_space(tmp_path, 1e9).ok


def test_disk_that_is_slow_for_a_moment_passes_and_a_slow_one_is_told_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([(900.0, 16.0), (40.0, 30.0), (5.0, 5.0), (7.0, 3.0), (9.0, 6.0)])
    monkeypatch.setattr(checks, "_write_and_read", lambda folder, mib: next(speeds))
    assert checks.disk_speed(tmp_path, 2, 20.0).measured == "writes 40, reads 30 MiB/s"
    slow = checks.disk_speed(tmp_path, 2, 20.0)
    assert not slow.ok and slow.measured == "writes 9, reads 6 MiB/s"


def test_data_is_hashed_up_to_the_budget_and_the_rest_by_size(tmp_path: Path) -> None:
    files = []
    for name in "ab":
        path = tmp_path / name
        path.write_bytes(b"x" * 100)
        files.append(DataFile(path, 100, hash_file(path)))
    (tmp_path / "b").write_bytes(b"y" * 100)
    assert not checks.checksums(files, 1e9).ok
    assert checks.checksums(files, 100).ok  # the second file is beyond the budget
    (tmp_path / "b").write_bytes(b"y" * 99)
    short = checks.checksums(files, 100)
    assert not short.ok and "99 bytes instead of 100" in short.measured
    (tmp_path / "a").unlink()
    assert "missing" in checks.checksums(files, 0).measured


def test_bounds_on_bandwidth_and_gpus_name_the_fix() -> None:
    assert checks.allreduce(25.0, 20.0, 64, "nccl").ok
    slow = checks.allreduce(1.0, 20.0, 64, "nccl")
    assert not slow.ok and slow.exit_code == 3 and "NCCL_IB_HCA" in slow.line()
    few = checks.visible_gpus(7, 8, "n1")
    assert not few.ok and few.exit_code == 2 and "exclude" in few.line()


def test_preflight_of_one_process_reports_all_that_fails_and_exits_2(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "recipe.yaml").write_text("inputs: [{glob: x}]\ntokenizer: t\noutput: o\n")
    limits = PreflightConfig(min_disk_free_gib=1e9, min_disk_mib_per_s=1e9, disk_mib=1)
    write_allocation(tmp_path, AllocationConfig(kind="data", gpus_per_node=0, preflight=limits))
    env = {k: v for k, v in os.environ.items() if k != "RANK"}
    command = [sys.executable, "-m", "launch.allocation.preflight", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "✗ free space" in done.stderr and "✗ disk speed" in done.stderr and "✓ recipe" in done.stdout
    assert [c["ok"] for c in read_json(tmp_path / "launch" / "preflight.json")["checks"]] == [True, False, False]


def test_actor_hears_why_there_are_no_servers(tmp_path: Path) -> None:
    from common.errors import GateError

    notes = Notes(tmp_path)
    with pytest.raises(GateError, match="within 0 s"):
        notes.wait_for_servers(0.0)
    notes.publish_failure("rollout servers 1 ended while starting")
    with pytest.raises(GateError, match="servers 1 ended"):
        notes.wait_for_servers(1.0)
    notes.publish_server(0, "http://n1:1")
    assert notes.servers() == {0: "http://n1:1"}
    notes.publish_all(["http://n1:1"])
    assert notes.wait_for_servers(1.0) == ("http://n1:1",)
