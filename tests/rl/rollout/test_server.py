"""What a server leaves behind. The process is a stand-in for SGLang: a script that holds what SGLang holds."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer

SHARED_MEMORY = Path("/dev/shm")
SCRIPT = """#!{python}
import mmap, time
file = open({file!r}, "wb+")
file.truncate(4096)
mapped = mmap.mmap(file.fileno(), 4096)
print("mapped", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no /dev/shm on this machine")
def test_a_killed_server_leaves_no_shared_memory_file_of_its_own(checkpoints, tmp_path: Path) -> None:
    own, other = (SHARED_MEMORY / f"sglang_loads_{tmp_path.name}_{name}.shm" for name in ("own", "other"))
    script = tmp_path / "python"
    script.write_text(SCRIPT.format(python=sys.executable, file=str(own)))
    script.chmod(0o755)
    server = SGLangServer(
        checkpoints[0], RolloutConfig(kind="sglang", python=script, device="cpu"), tmp_path / "logs"
    )
    other.touch()
    try:
        server.start()
        deadline = time.monotonic() + 30
        while "mapped" not in server.log_tail():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.kill()
        assert not own.exists() and other.exists() and not server.alive
    finally:
        server.kill()
        own.unlink(missing_ok=True)
        other.unlink()
