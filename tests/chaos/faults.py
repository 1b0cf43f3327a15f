"""The faults themselves: signals at random moments, damaged files, full and read-only folders, a jumping clock."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psutil

from tests.chaos.base import NotHere
from tests.chaos.process import Child

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
DAMAGES = ("truncated", "flipped bit", "zeroed part", "garbage part", "garbage tail", "emptied", "deleted")
PART = 4096


def wait_then(child: Child, seconds: float) -> bool:
    """Sleep, at most until the process has ended; whether it still lives."""
    end = time.monotonic() + seconds
    while child.code is None and time.monotonic() < end:
        time.sleep(0.002)
    return child.code is None


def signal_one(child: Child, rng: Random, number: signal.Signals, *, descendants: bool = True) -> str:
    """Send to a random process of a run: the command itself or one that it started. What was hit."""
    found: list[int] = [child.pid, *((p.pid for p in child.children()) if descendants else ())]
    pid = rng.choice(found)
    name = "command"
    if pid != child.pid:
        with suppress(psutil.NoSuchProcess):
            name = " ".join(psutil.Process(pid).cmdline())[-60:]
    with suppress(ProcessLookupError):
        os.kill(pid, number)
    return name


def damage(path: Path, kind: str, rng: Random) -> str:
    """Change a file's bytes; says where."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data)) if data else 0
    if kind == "deleted":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "truncated":
        os.truncate(path, at)
    else:
        if kind == "flipped bit" and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "zeroed part":
            data[at : at + PART] = bytes(len(data[at : at + PART]))
        elif kind == "garbage part":
            data[at : at + PART] = rng.randbytes(len(data[at : at + PART]))
        elif kind == "garbage tail":
            data += rng.randbytes(rng.randrange(1, PART))
        path.write_bytes(bytes(data))
    return f"{path.name} {kind} at byte {at}"


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own under `folder`. Raises NotHere where mounting is not permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def resize(folder: Path, size_bytes: int) -> None:
    """Give a small disk more space."""
    _mount("-o", f"remount,size={size_bytes}", str(folder))


def set_read_only(folder: Path, *, read_only: bool) -> None:
    """Remount a small disk."""
    _mount("-o", f"remount,{'ro' if read_only else 'rw'}", str(folder))


def _mount(*arguments: str) -> None:
    if shutil.which("mount") is None or os.geteuid() != 0:
        raise NotHere("mounting needs root")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"mount: {done.stderr.strip()}")


def fake_clock(folder: Path) -> dict[str, str]:
    """Environment of a process whose wall clock `jump` moves; its monotonic clock goes on."""
    if not FAKETIME.exists():
        raise NotHere("libfaketime is not installed (Debian: apt-get install libfaketime)")
    jump(folder, 0)
    return {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",  # a jump of the clock changes no file's times
    }


def jump(folder: Path, seconds: int) -> None:
    """Set the wall clock this far from the real one."""
    temporary = folder / "clock.new"
    temporary.write_text(f"{seconds:+d}\n")
    temporary.replace(folder / "clock")


def jumps(child: Child, folder: Path, rng: Random, gaps_s: Sequence[float]) -> None:
    """Move the clock back and forth by hours and days while the process runs."""
    for gap in gaps_s:
        if not wait_then(child, gap):
            return
        jump(folder, rng.choice((-86400 * 400, -86400, -3600, 3600, 86400, 86400 * 400)))


def copy_tree(source: Path, target: Path) -> None:
    """A copy of a run (locks and all); symbolic links stay."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


def remove(path: Path) -> None:
    """A folder and all in it."""
    shutil.rmtree(path)
