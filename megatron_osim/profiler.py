"""Records chosen steps with torch's profiler as RUN/profile/rankR-stepN.json. Inert on ranks that are not chosen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from megatron_osim.config import ProfileConfig


class StepProfiler:
    """Wrap every step in `step`; each chosen one gives a trace of its own."""

    def __init__(self, config: ProfileConfig | None, folder: Path, rank: int) -> None:
        self.config, self.folder, self.rank = config, folder, rank

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """`step` counts from 0."""
        c = self.config
        if c is None or self.rank not in c.ranks or not c.first_step <= step < c.first_step + c.steps:
            yield
            return
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities, profile_memory=c.memory, record_shapes=True) as profile:
            yield
        self.folder.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(self.folder / f"rank{self.rank}-step{step + 1}.json"))
