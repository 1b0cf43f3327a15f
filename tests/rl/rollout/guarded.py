"""A stand-in for SGLang's process: an HTTP server that demands its key as SGLang does, and repeats callers' keys."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = """#!{python}
import http.server, json, os, sys
KEY, OPEN = os.environ["OSIM_ROLLOUT_API_KEY"], {open!r}
print("arguments", sys.argv, flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        sent = self.headers["Authorization"]
        if self.path == "/health":
            return self.reply(200, {{}})
        if sent != "Bearer " + KEY and not OPEN:
            return self.reply(401, {{"error": "Unauthorized", "sent": sent}})
        if self.path in ("/server_info", "/model_info"):
            return self.reply(200, {{"device": "cpu", "weight_version": "0", "api_key": KEY}})
        self.reply(500, {{"error": "no memory for " + str(sent)}})

    do_POST = do_GET

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def write_interpreter(folder: Path, *, answers_everybody: bool = False) -> Path:
    """An executable to give as `rollout.python`."""
    script = folder / "python"
    script.write_text(SCRIPT.format(python=sys.executable, open=answers_everybody))
    script.chmod(0o755)
    return script
