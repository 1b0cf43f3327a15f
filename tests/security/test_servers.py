"""Who can reach what a run starts: this machine only, unless a recipe says otherwise; and only its own files."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config
from common.files import write_json
from common.run_folder import RunFolder
from eval import viewer
from eval.viewer import RunViewer, serve
from launch.evaluation import vllm
from launch.evaluation.vllm import VllmConfig, server_flags
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer
from rl.weight_sync.group import BroadcastGroup, own_address
from tests.fuzz.harness import HOSTILE_TEXTS, fuzz


class Made(Config):
    name: str = "made"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with files of its own, hidden ones, and links that lead out of it."""
    folder = RunFolder.prepare(tmp_path / "run", Made()).path
    (tmp_path / "secret.json").write_text("TOP SECRET")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.json").write_text("TOP SECRET")
    (folder / "ok.json").write_text("fine")
    (folder / ".hidden.json").write_text("TOP SECRET")
    (folder / "key.pem").write_text("TOP SECRET")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "to-hidden.json").symlink_to(folder / ".hidden.json")
    (folder / "circle.json").symlink_to(folder / "circle.json")
    return folder


@contextmanager
def viewing(run: Path) -> Iterator[str]:
    with serve(RunViewer(run, render=lambda: "<p>page</p>")) as address:
        yield address.removeprefix("http://").rstrip("/")


def get(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body, dict(reply.headers)


ESCAPES = [
    "/../secret.json", "/..%2fsecret.json", "/%2e%2e/secret.json", "/%2e%2e%2fsecret.json", "/..%252fsecret.json",
    "//etc/passwd", "/%2fetc%2fpasswd.json", "/link.json", "/folder/secret.json", "/.hidden.json", "/to-hidden.json",
    "/ok.json/../../secret.json", "/circle.json", "/key.pem", "/ok.json%00.json", "/" + "a" * 5000 + ".json",
    "/folder", "/.lock", "/./.hidden.json", "/logs/..%2f.hidden.json", "/..\\secret.json", "/%5c..%5csecret.json",
]  # fmt: skip


def test_the_viewer_gives_no_file_that_is_not_the_runs_own(run: Path) -> None:
    with viewing(run) as address:
        assert get(address, "/ok.json")[:2] == (200, b"fine")
        for path in ESCAPES:
            status, body, _ = get(address, path)
            assert status == 404 and b"SECRET" not in body and b"root:" not in body, path


PARTS = ("..", ".", "", "folder", "secret.json", "outside", "run", "%2e%2e", "link.json", ".hidden.json", "\\", "etc")


@fuzz(40)
@given(parts=st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=7))
def test_no_path_leads_out_of_the_run(parts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp() / "viewed"
    folder = base / "run"
    if not folder.exists():
        RunFolder.prepare(folder, Made())
        (base / "outside").mkdir()
        for secret in (base / "secret.json", base / "outside" / "secret.json", folder / ".hidden.json"):
            secret.write_text("SECRET")
        (folder / "folder").symlink_to(base / "outside")
        (folder / "link.json").symlink_to(base / "secret.json")
    found = RunViewer(folder).file("/" + "/".join(parts))
    assert found is None or (found.is_relative_to(folder.resolve()) and "SECRET" not in found.read_text())


def test_the_viewer_answers_for_this_machine_only_and_tells_no_other_page(run: Path) -> None:
    with viewing(run) as address:
        port = address.rpartition(":")[2]
        for host in ("evil.example", "evil.example:" + port, "127.0.0.1.evil.example", "", "0.0.0.0:" + port):
            assert get(address, "/", Host=host)[0] == 403, host
        for host in ("localhost:" + port, "127.0.0.1:" + port, "[::1]:" + port):
            assert get(address, "/", Host=host)[0] == 200, host
        headers = get(address, "/", Origin="http://evil.example")[2]
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["X-Content-Type-Options"] == "nosniff"


def listeners(port: int) -> list[str]:
    """Addresses on which this process listens at `port`."""
    every = psutil.Process().net_connections("inet")
    return [c.laddr.ip for c in every if c.status == psutil.CONN_LISTEN and c.laddr.port == port]


def test_the_viewer_listens_on_the_loopback_interface_only(run: Path) -> None:
    with viewing(run) as address:
        port = int(address.rpartition(":")[2])
        assert listeners(port) == ["127.0.0.1"]


def test_a_download_is_sent_in_pieces_and_as_long_as_it_was_promised(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "PIECE_BYTES", 1000)
    (run / "big.log").write_bytes(bytes(range(256)) * 100)
    with viewing(run) as address:
        status, body, headers = get(address, "/big.log")
        assert status == 200 and body == bytes(range(256)) * 100 and headers["Content-Length"] == "25600"


def test_requests_that_are_no_http_do_not_end_the_viewer(run: Path) -> None:
    with viewing(run) as address:
        host, port = address.split(":")
        for text in (b"\x00\xff" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000 + b"\r\n\r\n",
                     b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"):  # fmt: skip
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(text)
        for text in HOSTILE_TEXTS:
            assert get(address, "/" + quote(text[:500].encode("utf-8", "surrogatepass")))[0] in (200, 404)
        assert get(address, "/")[0] == 200


def test_rollout_servers_listen_on_this_machine_unless_a_recipe_says_otherwise(tmp_path: Path) -> None:
    config = RolloutConfig(device="cpu")
    assert config.host == "127.0.0.1"
    model = tmp_path
    write_json(model / "config.json", {"dtype": "float32", "max_position_embeddings": 512})
    flags = SGLangServer(model, config, tmp_path)._flags(0)
    assert flags[flags.index("--host") + 1] == "127.0.0.1"
    flags = server_flags(model, VllmConfig(), 1)
    assert flags[flags.index("--host") + 1] == vllm.HOST == "127.0.0.1"


def test_the_weight_group_of_a_server_on_this_machine_is_on_this_machine() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        assert own_address(f"http://127.0.0.1:{listening.getsockname()[1]}") == "127.0.0.1"
    group = BroadcastGroup(receivers=1, backend="gloo", timeout_s=5)
    assert listeners(group.port) == ["127.0.0.1"], "not on every address, as a TCPStore does by itself"
    group.close()


def test_no_source_names_an_address_of_all_interfaces() -> None:
    root = Path(__file__).resolve().parents[2]
    for package in ("common", "data_tools", "envs", "eval", "launch", "megatron_osim", "rl"):
        for file in (root / package).rglob("*"):
            if file.suffix in (".py", ".jinja", ".yaml", ".sh"):
                assert "0.0.0.0" not in file.read_text(), file
