"""One episode in this terminal: a person in some seats, a chat model in the others (`osim play`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from common.errors import UsageError
from envs.client.client import Client
from envs.client.config import ClientConfig, Endpoint
from envs.judges.model import ModelJudge
from envs.ledger import EpisodeKey, Ledger
from envs.play import play
from envs.players.base import Player
from envs.players.chat import ChatPlayer
from envs.players.human import HumanPlayer
from envs.registry import TaskSpec
from envs.types import Episode, Row, Seat

PATIENCE_S = 86_400.0
"""A person may think for a day."""


async def play_in_terminal(
    spec: TaskSpec,
    row: Row,
    taken: Collection[Seat],
    *,
    seed: int,
    partner: str | None = None,
    judge: str | None = None,
    out: Path | None = None,
) -> Episode:
    """Play `row`; `partner` and `judge` are models at OPENAI_BASE_URL. Raises UsageError for seats without a player.

    Another episode of the same row and seed in the ledger `out` takes the next free sample number.
    """
    env = spec.env("strict")
    where = f"task {spec.name}"
    if unknown := sorted(set(taken) - set(env.seats)):
        raise UsageError(f"no seat {', '.join(unknown)}", where=where, fix=f"one of {', '.join(env.seats)}")
    left = [seat for seat in env.seats if seat not in taken]
    if left and partner is None:
        raise UsageError(
            f"nobody plays {', '.join(left)}", where=where, fix="give --partner MODEL, or take every seat"
        )
    judging = Endpoint(model=judge) if judge is not None else None
    speaking = Endpoint(model=partner) if partner is not None else None
    client = Client(ClientConfig(judge=judging, critic=judging, partner=speaking))
    limits = replace(spec.limits, turn_timeout_s=PATIENCE_S, episode_timeout_s=PATIENCE_S)
    players: dict[Seat, Player] = {seat: HumanPlayer() if seat in taken else ChatPlayer(client) for seat in env.seats}
    try:
        asked = ModelJudge(client, spec.judges) if judge is not None else None
        episode = await play(env, row, players, judge=asked, seed=seed, limits=limits)
    finally:
        await client.close()
    if out is not None:
        with Ledger(out) as ledger:
            taken_samples = {key.sample for key in ledger.keys(phase="play") if key.prompt_id == row.prompt_id}
            ledger.put_episode(EpisodeKey("play", 0, row.prompt_id, len(taken_samples)), episode)
    return episode
