"""Weights as an HF directory that an engine loads: the `disk` transport, and the copy that replaced servers load.

Runs on the rank that streams the weights out. Tensors are written as they come, in files of bounded size, so one
file's worth of memory is enough. The directory appears by one rename; the two newest versions are kept (an engine
may still be reading the older one).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from common.files import atomic_directory, write_json
from rl.rollout.base import NamedTensor, buckets

KEPT_VERSIONS = 2
SHARED_MEMORY = Path("/dev/shm")


def weights_folder(run_dir: Path, purpose: str, *, other_machines: bool = False) -> Path:
    """A folder for weight versions of this run: in memory-backed /dev/shm where there is one, else in the run folder.

    other_machines: servers elsewhere read it too, so it is in the run folder, which they see.
    The name is a function of the run folder's, so a restarted run overwrites what a killed one left.
    """
    if SHARED_MEMORY.is_dir() and not other_machines:
        run = hashlib.blake2b(str(run_dir.resolve()).encode(), digest_size=6).hexdigest()
        return SHARED_MEMORY / f"osim-{run_dir.name}-{run}-{purpose}"
    return run_dir / "weights" / purpose


class CheckpointWriter:
    """Writes version after version below `folder`, with config and tokenizer taken from `base`."""

    def __init__(self, folder: Path, base: Path, *, shard_bytes: int = 1 << 30) -> None:
        self._folder, self._base, self._shard_bytes = folder, base, shard_bytes

    def path(self, version: int) -> Path:
        return self._folder / f"version-{version:06d}"

    def write(self, tensors: Iterable[NamedTensor], version: int) -> Path:
        """Store the whole stream as one HF directory and give its path."""
        for _ in self.tee(tensors, version):
            pass
        return self.path(version)

    def tee(self, tensors: Iterable[NamedTensor], version: int) -> Iterator[NamedTensor]:
        """Pass the stream on while storing it; the directory appears when the stream has ended."""
        from safetensors.torch import save_file

        final = self.path(version)
        with atomic_directory(final) as folder:
            for file in self._base.iterdir():
                if file.is_file() and ".safetensors" not in file.name:
                    shutil.copyfile(file, folder / file.name)
            weight_map: dict[str, str] = {}
            total = 0
            for number, shard in enumerate(buckets(tensors, self._shard_bytes)):
                name = f"model-{number:05d}.safetensors"
                save_file({n: t.detach().cpu().contiguous() for n, t in shard}, folder / name, {"format": "pt"})
                weight_map |= {n: name for n, _ in shard}
                total += sum(t.nbytes for _, t in shard)
                yield from shard
            write_json(
                folder / "model.safetensors.index.json",
                {"metadata": {"total_size": total}, "weight_map": weight_map},
            )
        self._remove_old()

    def close(self) -> None:
        """Remove every version."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _remove_old(self) -> None:
        for old in sorted(self._folder.glob("version-*"))[:-KEPT_VERSIONS]:
            shutil.rmtree(old, ignore_errors=True)
