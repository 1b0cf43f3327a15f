"""Fetching from a hub: a local server that speaks the hub's API, the real client against it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from common.errors import UsageError
from common.files import read_json
from data_tools.fetch import DATASETS, fetch, plan_fetch

COMMIT = "a" * 40
FILES = {"train/part-0.jsonl": b'{"messages": []}\n' * 50, "train/part-1.parquet": b"PAR1" * 99, "README.md": b"# hi"}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's API that a dataset download uses."""

    requests: Counter[str]

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.requests[f"{self.command} {path}"] += 1  # type: ignore[attr-defined]
        if path.startswith(f"/api/datasets/lab/corpus/tree/{COMMIT}"):
            tree = [{"type": "file", "path": n, "size": len(d), "oid": _oid(d)} for n, d in FILES.items()]
            self._send(json.dumps(tree).encode(), body)
        elif path.startswith("/api/datasets/lab/corpus"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
            self._send(json.dumps({"id": "lab/corpus", "sha": COMMIT, "siblings": siblings}).encode(), body)
        elif path.startswith(f"/datasets/lab/corpus/resolve/{COMMIT}/"):
            data = FILES[path.split(f"{COMMIT}/")[1]]
            self._send(data, body, {"X-Repo-Commit": COMMIT, "ETag": f'"{_oid(data)}"'})
        else:
            self._send(b"{}", body, {"X-Error-Code": "RepoNotFound"}, status=404)

    def _send(self, data: bytes, body: bool, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests = Counter()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_corpus_files_are_fetched_once_and_named(hub, tmp_path):
    server, endpoint = hub
    plan = plan_fetch("lab/corpus", endpoint=endpoint)
    assert plan.files == ("train/part-0.jsonl", "train/part-1.parquet") and plan.commit == COMMIT
    assert plan.bytes == sum(len(FILES[f]) for f in plan.files)
    for _ in range(2):
        paths = fetch(plan, tmp_path / "data", endpoint=endpoint)
        assert [p.read_bytes() for p in paths] == [FILES[f] for f in plan.files]
    assert read_json(tmp_path / "data" / "FETCHED.json")["commit"] == COMMIT
    assert not (tmp_path / "data" / "README.md").exists()
    gets = {k: n for k, n in server.requests.items() if k.startswith("GET /datasets")}
    assert set(gets.values()) == {1}


def test_what_cannot_be_fetched_is_one_clear_error(hub, tmp_path):
    _, endpoint = hub
    with pytest.raises(UsageError, match="no such dataset, or no access"):
        plan_fetch("lab/none", endpoint=endpoint)
    with pytest.raises(UsageError, match="no file matches"):
        plan_fetch("lab/corpus", patterns=["*.csv"], endpoint=endpoint)
    with pytest.raises(UsageError, match="unknown dataset 'corpus'"):
        plan_fetch("corpus")
    with pytest.raises(UsageError, match="the hub did not answer"):
        plan_fetch("lab/corpus", endpoint="http://127.0.0.1:9")
    assert DATASETS["osim-mid-training"] == "cmu-lti/osim-mid-training"
