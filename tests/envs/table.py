"""What episode tests need: a byte-level tokenizer, an engine that samples from seeds alone, a tiny environment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from data_tools.renderer import CHATML, Renderer
from envs.engine import Generation, Sampling, VersionSpan
from envs.env import Done, Feedback, FormatError, JudgeAsk
from envs.types import Message, Outcome, Row, Score, Seat

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_renderer(*, live: bool = False) -> Renderer:
    """ChatML over the 256 bytes."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    return Renderer(tokenizer, CHATML, live=live)


@dataclass
class SeededEngine:
    """Draws letters from (seed, prompt length); may stop early or at the token limit; remembers every call."""

    renderer: Renderer
    name: str = "seeded"
    reproducible: bool = True
    version: int = 1
    latency_s: float = 0.0
    stop_probability: float = 0.2
    calls: list[tuple[tuple[int, ...], Generation]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        rng = random.Random(f"{seed}:{len(prompt_ids)}")
        letters = self.renderer.encode_content("abcdefgh ")
        ids: list[int] = []
        while len(ids) < sampling.max_tokens:
            if ids and rng.random() < self.stop_probability:
                ids.append(sampling.stop_ids[0])
                break
            ids.append(rng.choice(letters))
        finish = "stop" if ids[-1] in sampling.stop_ids else "length"
        middle = len(ids) // 2
        spans = (VersionSpan(self.version, 0, middle), VersionSpan(self.version + 1, middle, len(ids)))
        versions = spans if middle else (VersionSpan(self.version, 0, len(ids)),)
        logprobs = tuple(-rng.random() for _ in ids)
        generation = Generation(tuple(ids), logprobs, finish, versions)
        self.calls.append((prompt_ids, generation))
        self.seeds.append(seed)
        return generation

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        return tuple(-1.0 for _ in ids[start:])


@dataclass(frozen=True, slots=True)
class Talk:
    """State of `Dialogue`."""

    said: tuple[tuple[Seat, str], ...] = ()
    secret: int = 0


@dataclass(frozen=True)
class Dialogue:
    """Two seats alternate for `rounds` rounds; the score is the share of `a`'s letters that are vowels."""

    rounds: int = 3
    simultaneous: bool = False
    judged: bool = False
    forbidden: str = "\x00"
    seats: tuple[Seat, ...] = ("a", "b")

    def start(self, row: Row, rng: random.Random) -> Talk:
        return Talk(secret=rng.randrange(10**6))

    def turn(self, state: Talk) -> Sequence[Seat] | Done:
        if len(state.said) >= 2 * self.rounds:
            return Done()
        return self.seats if self.simultaneous else [self.seats[len(state.said) % 2]]

    def view(self, state: Talk, seat: Seat) -> Sequence[Message]:
        other = "b" if seat == "a" else "a"
        opening = f"You are {seat}. Number {state.secret}." if seat == "a" else f"You are {seat}."
        said = state.said
        if self.simultaneous and seat == "b":
            # Of what was said at once, a seat reads its own words first.
            said = tuple(said[i ^ 1] if i ^ 1 < len(said) else said[i] for i in range(len(said)))
        heard = [
            Message("assistant", text) if who == seat else Message("user", f"{other}: {text}") for who, text in said
        ]
        return [Message("system", opening), Message("user", "Begin."), *heard]

    def hear(self, state: Talk, seat: Seat, text: str) -> Talk | FormatError:
        if self.forbidden in text:
            return FormatError(f"{self.forbidden!r} is not allowed")
        return Talk((*state.said, (seat, text)), state.secret)

    def score(self, state: Talk) -> Mapping[Seat, Outcome | JudgeAsk]:
        outcomes: dict[Seat, Outcome | JudgeAsk] = {}
        for seat in self.seats:
            text = "".join(t for who, t in state.said if who == seat)
            if self.judged:
                outcomes[seat] = JudgeAsk("vowels", {"transcript": text}, lambda v: Score(v.score))
            else:
                outcomes[seat] = Score(sum(map(text.count, "aeiou")) / max(1, len(text)))
        return outcomes

    def feedback(self, state: Talk, seat: Seat) -> Feedback | None:
        return Feedback("Use more vowels.", sees_gold=False)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return "The answer is: vowels."


def row(ident: str = "1") -> Row:
    return Row("dialogue", ident, "c", {"n": 1})
