"""An engine that counts what it is asked and what its prefix cache saved. Runs where the engine's client runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from envs.engine import Engine, Generation, Sampling


@dataclass
class Usage:
    """Sums since the last `take`."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens: those whose keys and values were in the prefix cache."""
    sampled_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were not computed again."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


@dataclass
class MeteredEngine:
    """`engine`, counted. Only completed requests count."""

    engine: Engine
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        self.name, self.reproducible = self.engine.name, self.engine.reproducible

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        found = await self.engine.generate(prompt_ids, sampling, seed=seed, request_id=request_id)
        self.usage.requests += 1
        self.usage.prompt_tokens += len(prompt_ids)
        self.usage.cached_tokens += found.cached_tokens
        self.usage.sampled_tokens += len(found.ids)
        return found

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        return await self.engine.score(ids, start)

    def take(self) -> Usage:
        """What was counted since the last call."""
        taken, self.usage = self.usage, Usage()
        return taken
