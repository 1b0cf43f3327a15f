"""A stand-in for SGLang's process: an HTTP server that demands its key as SGLang does, and repeats callers' keys."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.loopback import JSON_SERVER

SCRIPT = """
import os
KEY, OPEN = os.environ["OSIM_ROLLOUT_API_KEY"], {open!r}
print("arguments", sys.argv, flush=True)

class Handler(JsonHandler):
    def do_GET(self):
        self.asked()
        sent = self.headers["Authorization"]
        if self.path == "/health":
            return self.reply(200, {{}})
        if sent != "Bearer " + KEY and not OPEN:
            return self.reply(401, {{"error": "Unauthorized", "sent": sent}})
        if self.path in ("/server_info", "/model_info"):
            return self.reply(200, {{"device": "cpu", "weight_version": "0", "api_key": KEY}})
        self.reply(500, {{"error": "no memory for " + str(sent)}})

    do_POST = do_GET

serve(Handler)
"""


def write_interpreter(folder: Path, *, answers_everybody: bool = False) -> Path:
    """An executable to give as `rollout.python`."""
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{JSON_SERVER}{SCRIPT.format(open=answers_everybody)}")
    script.chmod(0o755)
    return script
