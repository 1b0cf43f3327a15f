"""Planted secrets are in no file, no output and no command line, even when an endpoint repeats them."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
import zstandard
from aiohttp import web
from typer.testing import CliRunner

from common.config import validate
from common.errors import ConfigError
from common.files import write_json
from common.run_folder import RunFolder
from envs.client.config import Endpoint
from envs.ledger import LedgerReader
from launch import cli
from tests.eval.toy_tasks import JUDGED
from tests.fuzz.harness import to_json
from tests.loopback import served_in_a_thread
from tests.rl import runs
from tests.rl.rollout.conftest import write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "OPENAI_API_KEY": "plantedOpenaiKey0123456789",
    "POLICY_KEY": "plantedPolicyKey+/=abcdef",
    "JUDGE_KEY": "plantedJudgeKey.with.dots.99",
    "ROLLOUT_KEY": "plantedRolloutKey_0123-4567",
    "HF_TOKEN": "hf_plantedHubToken0123456789",
    "WANDB_API_KEY": "plantedWandbKey00112233445566778899aabb",
}
USER_AND_PASSWORD = "plantedUser:plantedPassword77"
IN_QUERY = "plantedQuerySecret42"
FAILS_FIRST = 1
"""Requests of each question that are answered with an error."""


def forms(secret: str) -> list[bytes]:
    """A secret as it may stand in a file: as it is, in base64 at any offset, and encoded for an address."""
    inside = [base64.b64encode(b"x" * shift + secret.encode())[(4 if shift else 0) + 4 : -4] for shift in range(3)]
    return [secret.encode(), quote(secret, safe="").encode(), *(part for part in inside if len(part) >= 12)]


ALL_FORMS = [form for s in (*SECRETS.values(), USER_AND_PASSWORD, "plantedPassword77", IN_QUERY) for form in forms(s)]


def assert_clean(data: bytes, where: object) -> None:
    for form in ALL_FORMS:
        assert form not in data, f"{where} holds {form!r}"


def assert_clean_folder(folder: Path) -> int:
    """Every file below, compressed ones unpacked, names included. Returns how many."""
    count = 0
    for path in folder.rglob("*"):
        assert_clean(str(path).encode(), path)
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert_clean(data, path)
            if path.suffix == ".gz":
                assert_clean(gzip.decompress(data), path)
            if path.name == "ledger.sqlite":
                assert_clean_ledger(path.parent)
            count += 1
    return count


def assert_clean_ledger(folder: Path) -> None:
    """Its blobs are compressed: unpacked here."""
    with LedgerReader(folder) as reader:
        for (data,) in reader._query("SELECT data FROM blobs"):
            assert_clean(zstandard.ZstdDecompressor().decompress(data), folder)


@contextmanager
def parrot_server() -> Iterator[str]:
    """A chat endpoint, and a rollout server, that repeat their caller's header in answers and errors. Yields its
    address."""
    asked: dict[str, int] = {}

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        key = request.headers.get("Authorization", "")
        question = json.dumps(body["messages"], sort_keys=True)
        asked[question] = asked.get(question, 0) + 1
        if asked[question] <= FAILS_FIRST:
            return web.json_response({"error": {"message": f"sorry, {key}, try {request.url} again"}}, status=503)
        text = f"You sent {key}."
        if "response_format" in body:
            context = dict.fromkeys(("speaker", "relation", "situation", "goal"), f"somebody with {key}")
            judged = json.dumps({"score": 0.5}) if "schema" in json.dumps(body["response_format"]) else ""
            text = judged or json.dumps(context)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return web.json_response({"id": "1", "object": "chat.completion", "choices": [choice]})

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"error": request.headers.get("Authorization", "")}, status=401)

    async def server_info(request: web.Request) -> web.Response:
        return web.json_response({"device": "cpu", "api_key": request.headers["Authorization"]})

    async def healthy(request: web.Request) -> web.Response:
        return web.json_response({})

    async def generate(request: web.Request) -> web.Response:
        key = request.headers["Authorization"]
        return web.json_response({"meta_info": {"finish_reason": {"type": key}}, "error": key}, status=500)

    app = web.Application()
    app.router.add_get("/v1/server_info", server_info)
    app.router.add_post("/v1/generate", generate)
    app.router.add_get("/v1/health", healthy)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    with served_in_a_thread(app) as address:
        yield f"{address.removeprefix('http://')}/v1"


@contextmanager
def command_lines() -> Iterator[list[bytes]]:
    """Command lines of this process's children while the body runs, looked at all the time."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.05):
            for child in psutil.Process().children(recursive=True):
                try:
                    seen.add("\0".join(child.cmdline()).encode())
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    found: list[bytes] = []
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found += sorted(seen)


def osim(*arguments: str, code: int | None = 0) -> str:
    done = CliRunner().invoke(cli.app, list(arguments))
    text = done.output + (done.stderr if done.stderr_bytes else "") + str(done.exception or "")
    assert code is None or done.exit_code == code, text
    assert_clean(text.encode("utf-8", "replace"), arguments[:2])
    return text


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The environment with all secrets, and the address of the endpoint that repeats them."""
    with parrot_server() as address:
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://{USER_AND_PASSWORD}@{address}")
        yield address


def test_secrets_are_in_no_artefact_of_data_evaluation_report_and_launch(planted: str, tmp_path: Path) -> None:
    url = f"http://{planted}"
    with command_lines() as lines:
        talk = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        rows = [{"id": str(i), "data_source": "soc_haico", "messages": talk} for i in range(3)]
        (tmp_path / "rows.jsonl").write_bytes(b"".join(to_json(r) + b"\n" for r in rows))
        (tmp_path / "ground.yaml").write_text(f"model: m\nbase_url: {url}\napi_key_env: POLICY_KEY\n")
        grounded = tmp_path / "grounded.jsonl"
        osim("data", "ground", "-r", str(tmp_path / "ground.yaml"), "-i", str(tmp_path / "rows.jsonl"),
             "--output", str(grounded), "--yes")  # fmt: skip
        assert b"somebody with" in grounded.read_bytes()

        run = tmp_path / "run"
        recipe = {
            "suite": JUDGED,
            "model": {"endpoint": {"model": "m", "base_url": url, "api_key_variable": "POLICY_KEY"}},
            "client": {"judge": {"model": "j", "base_url": url, "api_key_variable": "JUDGE_KEY"}},
            "limit": 3,
            "baseline_rows": 0,
        }
        write_json(tmp_path / "eval.yaml", recipe)
        osim("eval", "run", "--recipe", str(tmp_path / "eval.yaml"), "--out", str(run))
        assert "You sent" in "".join(s.text for r in LedgerReader(run / "ledger").episodes() for s in r.episode.says)
        osim("eval", "report", str(run), "--output", str(tmp_path / "report.html"))
        osim("why", str(run))
        osim("config", "show", "eval", str(tmp_path / "eval.yaml"))
        doctor = CliRunner().invoke(cli.app, ["doctor"])
        assert "Judge endpoint" in doctor.output
        assert_clean(doctor.output.encode(), "doctor")
        cluster = ROOT / "launch" / "recipes" / "clusters" / CLUSTER
        osim("launch", "eval", "--recipe", str(tmp_path / "eval.yaml"), "--cluster", str(cluster),
             "--out", str(tmp_path / "launched"), "--dry-run")  # fmt: skip
    assert assert_clean_folder(tmp_path) > 8
    for line in lines:
        assert_clean(line, "a command line")


CLUSTER = "h100-8x8.yaml"


@pytest.mark.slow
def test_secrets_are_in_no_artefact_of_rl_whose_judge_fails(planted: str, tmp_path: Path) -> None:
    """The judge answers with errors that repeat its key, and the run ends with such an error in its text."""
    model = write_checkpoint(tmp_path / "hf", seed=3)
    judge = {"model": "j", "base_url": f"http://{planted}", "api_key_variable": "JUDGE_KEY", "structured": "none",
             "max_retries": FAILS_FIRST - 1, "max_reasks": 0}  # fmt: skip
    config = runs.config(model, {"name": "grpo"}, steps=1, tasks=[{"task": "tests.rl.judged:spec"}],
                         groups_per_step=1, samples_per_prompt=2, client={"judge": judge})  # fmt: skip
    run = RunFolder.prepare(tmp_path / "run", config).path
    with command_lines() as lines:
        process = runs.start(run)
        try:
            assert process.wait(240) == 3, runs.log_of(run)  # nothing was scored: the gate
        finally:
            process.kill()
    assert "sorry, Bearer [redacted], try" in runs.log_of(run)
    assert assert_clean_folder(run) > 3
    for line in lines:
        assert_clean(line, "a command line")


def test_the_key_of_rollout_servers_is_in_no_artefact_of_an_evaluation_that_they_fail(
    planted: str, tmp_path: Path
) -> None:
    model = write_checkpoint(tmp_path / "hf", seed=3)
    run = tmp_path / "run"
    failed = osim("eval", "run", "--suite", "hitom_mini", "--model", str(model), "--out", str(run), "limit=2",
                  "baseline_rows=0", "model.engine.kind=sglang", f"model.engine.urls=[http://{planted}]",
                  "model.engine.api_key_variable=ROLLOUT_KEY", code=None)  # fmt: skip
    assert "Bearer [redacted]" in failed
    assert_clean_folder(tmp_path)


def test_a_password_in_the_default_address_is_shown_nowhere(planted: str, tmp_path: Path) -> None:
    """The client sends a key or a password, never both: the run is refused, and says so without either."""
    run = ["--suite", JUDGED, "--model", "api:m", "--judge", "api:j", "--out", str(tmp_path / "run")]
    refused = osim("eval", "run", *run, "limit=2", "baseline_rows=0", *FAST, code=None)
    assert "not everybody answers" in refused
    assert_clean_folder(tmp_path)


FAST = ("model.endpoint.max_retries=0", "client.judge.max_retries=0")


@pytest.mark.parametrize(
    "url",
    [
        f"http://{USER_AND_PASSWORD}@host/v1",
        f"https://host/v1?api-key={IN_QUERY}",
        "https://plantedToken0123@host/v1",
    ],
)
def test_an_address_with_a_credential_is_no_recipe(url: str) -> None:
    with pytest.raises(ConfigError, match="holds a credential") as refused:
        validate(Endpoint, {"model": "m", "base_url": url}, where="client.judge")
    assert_clean(str(refused.value).encode(), "the error")
    assert "plantedToken" not in str(refused.value)
