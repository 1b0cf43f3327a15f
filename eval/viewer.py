"""`osim view RUN`: serve the report of a run on this machine, rendered anew while the run goes on.

Listens on the loopback interface only and answers requests for that name only (a web page elsewhere cannot reach it
through its own name). Serves the report and the run's own small files; nothing outside the run folder, no folder
listings, no writing. A page that is open learns from /version that there is something new. Rendering errors are shown
on the page with their fix; the server goes on.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common.errors import OsimError, UsageError
from common.run_folder import RunFolder
from eval.human_likeness.from_run import LIKENESS_FILE
from eval.progress import PROGRESS_FILE
from eval.report.from_run import run_sections
from eval.report.transcripts import TokenPieces
from eval.report.write import render_report
from eval.results import RESULTS_FILE

HOST = "127.0.0.1"
PIECE_BYTES = 1 << 20
CLIENT_TIMEOUT_S = 60.0
"""A client that says nothing for so long is dropped."""
DOWNLOADS = (".json", ".jsonl", ".yaml", ".html", ".log", ".txt", ".parquet")
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")


class RunViewer:
    """Renders one run; keeps the last rendering until the run's files change."""

    def __init__(
        self, folder: Path, render: Callable[[], str] | None = None, pieces: TokenPieces | None = None
    ) -> None:
        if not RunFolder(folder).config.is_file():
            raise UsageError(
                "not a run folder", where=str(folder), fix="give the folder that osim wrote config.yaml to"
            )
        self.folder = folder.resolve()
        self._render = render or self._report
        self._pieces = pieces
        self._lock = threading.Lock()
        self._page: tuple[str, bytes] | None = None

    def version(self) -> str:
        """Changes whenever results, progress, metrics, ledger or owner do."""
        run = RunFolder(self.folder)
        own = [self.folder / name for name in (RESULTS_FILE, PROGRESS_FILE, LIKENESS_FILE)]
        seen = [*own, run.metrics, *sorted(run.ledger.glob("*.sqlite*"))]
        states = [(p.name, s.st_mtime_ns, s.st_size) for p in seen if (s := _stat(p)) is not None]
        return hashlib.blake2b(repr((states, run.owner())).encode(), digest_size=12).hexdigest()

    def page(self) -> bytes:
        """The report as it is now."""
        with self._lock:
            version = self.version()
            if self._page is None or self._page[0] != version:
                self._page = (version, self._rendered())
            return self._page[1]

    def file(self, path: str) -> Path | None:
        """The file of the run that a request names; None for anything else."""
        wanted = unquote(path).lstrip("/")
        if "\x00" in wanted or not wanted:
            return None
        try:
            target = (self.folder / wanted).resolve()
            if not target.is_relative_to(self.folder) or target.suffix not in DOWNLOADS or not target.is_file():
                return None
        except (OSError, RuntimeError):  # a name that is too long, links that go in circles
            return None
        parts = (*Path(wanted).parts, *target.relative_to(self.folder).parts)
        return None if any(part.startswith(".") for part in parts) else target

    def _rendered(self) -> bytes:
        try:
            return self._render().encode("utf-8", "replace")
        except OsimError as e:
            # Half-written state of a running job: say so and try again at the next change.
            return f"<!doctype html><title>osim view</title><pre>{escape(str(e))}</pre>".encode()

    def _report(self) -> str:
        html, _ = render_report(self.folder.name, run_sections([self.folder], pieces=self._pieces), live=True)
        return html


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


class _Handler(BaseHTTPRequestHandler):
    server_version = "osim-view"
    timeout = CLIENT_TIMEOUT_S
    viewer: RunViewer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in LOCAL_NAMES:
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"this server answers for this machine only\n")
        elif path in ("/", "/index.html"):
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.viewer.page())
        elif path == "/version":
            self._send(HTTPStatus.OK, "text/plain", self.viewer.version().encode())
        elif (target := self.viewer.file(path)) is not None:
            self._send_file(target)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not a file of this run\n")

    def _send_file(self, target: Path) -> None:
        """As much as the file holds now, piece by piece: a log may be larger than memory, and grow meanwhile."""
        with target.open("rb") as f:
            left = os.fstat(f.fileno()).st_size
            self._send_head(HTTPStatus.OK, mimetypes.guess_type(target.name)[0] or "text/plain", left)
            while left and (piece := f.read(min(left, PIECE_BYTES))):
                self.wfile.write(piece)
                left -= len(piece)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._send_head(status, kind, len(body))
        self.wfile.write(body)

    def _send_head(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(length)),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the terminal belongs to the person who typed `osim view`."""


@contextmanager
def serve(viewer: RunViewer, port: int = 0) -> Iterator[str]:
    """Serve in a thread until the body ends; yields the address. Raises UsageError when the port is taken."""
    handler = type("RunHandler", (_Handler,), {"viewer": viewer})
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except OSError as e:
        raise UsageError(
            f"cannot listen on port {port}: {e.strerror}", fix="give another port, or 0 for a free one"
        ) from e
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="osim-view", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
