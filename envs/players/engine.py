"""A seat played by a rollout engine: token ids in, token ids and log-probs out.

Invariants: the trace's segments concatenate to the prompt and output of every engine call (tests/envs/test_play.py);
a failed call is repeated with the same seed, then given up as EngineError; a malformed generation is a failure.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from functools import cached_property

from data_tools.renderer import Renderer
from envs.engine import Engine, EngineError, Generation, Sampling
from envs.players.base import Ask, ContextFull, Said
from envs.tokens import Prompts, TokenContext
from envs.types import Limits, Seat, SeatTrace

RETRY_PAUSE_S = 0.05


@dataclass(frozen=True)
class EnginePlayer:
    """Plays with `engine`; `sampling.max_tokens` is further bounded by the episode's limits."""

    engine: Engine
    renderer: Renderer
    sampling: Sampling
    token_exact: bool = True

    @cached_property
    def prompts(self) -> Prompts:
        """First prompts that its sessions share."""
        return Prompts(self.renderer)

    def join(self, seat: Seat, *, learnable: bool, limits: Limits, episode_id: str) -> EngineSession:
        return EngineSession(self, seat, learnable, limits, episode_id)


class EngineSession:
    """One seat in one episode."""

    def __init__(self, player: EnginePlayer, seat: Seat, learnable: bool, limits: Limits, episode_id: str) -> None:
        self._player, self._limits = player, limits
        self._name = f"{episode_id}/{seat}"
        self.context = TokenContext(player.prompts, seat, learnable=learnable)
        stops = dict.fromkeys((player.renderer.end_id, *player.sampling.stop_ids))
        most = min(player.sampling.max_tokens, limits.max_tokens)
        self._sampling = replace(player.sampling, stop_ids=tuple(stops), max_tokens=most)

    async def act(self, ask: Ask) -> Said:
        given = self.context.render(ask.new)
        room = self._limits.max_context_tokens - len(self.context) - len(given)
        if room < 1:
            raise ContextFull(f"{self._name}: no room for an answer within {self._limits.max_context_tokens} tokens")
        if ask.plain is not None:
            self.context.played_with_feedback(ask.plain)
        self.context.given(given, ask.turn)
        sampling = self._sampling if room >= self._sampling.max_tokens else replace(self._sampling, max_tokens=room)
        generation = await self._generate(sampling, ask)
        self.context.sampled(generation, ask.turn)
        return Said(spoken_text(self._player.renderer, generation))

    def trace(self) -> SeatTrace:
        return self.context.trace()

    async def _generate(self, sampling: Sampling, ask: Ask) -> Generation:
        prompt = self.context.ids
        for attempt in range(self._limits.engine_retries + 1):
            request_id = f"{self._name}/{ask.turn}/{attempt}"
            try:
                generation = await self._player.engine.generate(
                    prompt, sampling, seed=ask.seed, request_id=request_id
                )
                check_generation(generation, sampling.max_tokens)
            except EngineError as e:
                failure = e
                await asyncio.sleep(RETRY_PAUSE_S * 2**attempt)
            else:
                return generation
        raise EngineError(f"{self._name}: {attempt + 1} attempts failed; last: {failure}") from failure


def check_generation(generation: Generation, max_tokens: int) -> None:
    """Raise EngineError unless the generation is whole and consistent."""
    n = len(generation.ids)
    position = 0
    for span in generation.versions:
        if span.start != position or span.end <= span.start:
            raise EngineError(f"weight-version spans do not tile the output: {generation.versions}")
        position = span.end
    if generation.finish == "abort":
        raise EngineError("the engine aborted the request")
    if not 0 < n <= max_tokens:
        raise EngineError(f"{n} tokens came back, 1 to {max_tokens} were asked for")
    if len(generation.logprobs) != n or position != n:
        raise EngineError(f"{n} tokens, {len(generation.logprobs)} log-probs, versions for {position}")
    # A sum is finite only if every term is, and then `max` compares numbers.
    if not (math.isfinite(sum(generation.logprobs)) and max(generation.logprobs) <= 1e-3):
        raise EngineError("log-probs are not finite and at most 0")


def spoken_text(renderer: Renderer, generation: Generation) -> str:
    """What the others hear: without the stop token and without a leading block of private reasoning."""
    ids = generation.ids[:-1] if generation.finish == "stop" else generation.ids
    return without_reasoning(renderer.decode(ids)).strip()


def without_reasoning(text: str) -> str:
    """`text` after its leading <think>…</think>; nothing when that block never ends."""
    body = text.lstrip()
    if not body.startswith("<think>"):
        return text
    return body.partition("</think>")[2]
