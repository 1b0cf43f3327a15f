"""Several SGLang servers as one engine: routing, retry, and replacement of a server that died or hangs.

Runs on the rank that owns the rollout side. Requests whose prompts begin alike go to the same engine (its prefix
cache then serves the whole group), unless that engine is much busier than the others. When an engine fails a request
and does not answer a probe either, the request moves on to another engine, and the failed one is replaced in the
background: its server is killed, a new one started, the weights of the current version loaded from a copy on disk.
A request that finds no engine waits for a replacement, at most `start_timeout_s`. So a lost server costs the tokens
that were in flight on it, not the step. A bad request (a refusal by the client's own guards) is never retried.
A replacement is tried again while the server or its port is what fails; any other error (a full disk, weights that
cannot be read) ends it. When no engine is left then, the waiting requests fail at once with that error's text.

Weight updates go to every live engine, bucket by bucket; an engine that fails an update is replaced too. An update
waits for an engine that answers before it begins; one that loses all of them on its way is an EngineError.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from array import array
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from common.errors import UsageError
from envs.engine import EngineError, Generation, Sampling
from rl.rollout.api_key import named_key
from rl.rollout.base import (
    Bucket,
    ChecksumLayout,
    Health,
    NamedTensor,
    PauseMode,
    StreamedUpdates,
    StreamTransport,
    check_request,
)
from rl.rollout.config import RolloutConfig
from rl.rollout.server import SGLangServer
from rl.rollout.sglang import SGLangEngine
from rl.weight_sync.disk import CheckpointWriter, weights_folder

T = TypeVar("T")
logger = logging.getLogger(__name__)
AFFINITY_TOKENS = 256
"""Prompts that agree on this many first tokens prefer the same engine."""
OVERLOAD = 1.5
"""An engine with more than this many times the mean load (and some) passes new groups on."""
OVERLOAD_FLOOR = 8
MISSES_BEFORE_REPLACEMENT = 3


@dataclass
class Member:
    """One engine of the pool and, where we started it, its server."""

    engine: SGLangEngine
    server: SGLangServer | None
    key: bytes
    up: bool = True
    load: int = 0
    misses: int = 0
    replacement: asyncio.Task[None] | None = None
    trouble: BaseException | None = None
    """Why the latest try to replace it failed."""

    @property
    def lost(self) -> bool:
        """Down, and nothing brings it back any more."""
        return not self.up and self.replacement is not None and self.replacement.done()


class EnginePool(StreamedUpdates):
    """See the module's docstring. Build with `start` (own servers) or `attach` (servers by URL)."""

    stream_transports: tuple[StreamTransport, ...] = SGLangEngine.stream_transports
    checksum_layout: ChecksumLayout | None = "sglang"

    def __init__(self, model: Path, config: RolloutConfig, run_dir: Path) -> None:
        self._model, self._config = model, config
        self._log_dir = run_dir / "logs"
        self._members: list[Member] = []
        self._copies = CheckpointWriter(weights_folder(run_dir, "rollout", other_machines=bool(config.urls)), model)
        self._current: tuple[Path, int] = (model, 0)
        """The newest weights on disk: what a replaced server loads."""
        self._transport: StreamTransport = SGLangEngine.stream_transport
        self._paused: PauseMode | None = None
        self._updating = asyncio.Lock()
        self._changed = asyncio.Event()
        self._supervision: asyncio.Task[None] | None = None
        self.name = f"SGLang x{len(config.urls) or config.servers}"
        self.reproducible = config.deterministic
        self.replacements = 0
        self.version = 0
        self.vocab_size = 0
        self.max_context = 0

    @classmethod
    async def start(cls, model: Path, config: RolloutConfig, run_dir: Path) -> EnginePool:
        """Start `config.servers` servers of `model` and wait until all answer; on any failure none is left."""
        pool = cls(model, config, run_dir)
        servers = [SGLangServer(model, config, pool._log_dir, index=i) for i in range(config.servers)]
        try:
            for server in servers:
                server.start()
            await asyncio.gather(*(server.wait_ready() for server in servers))
            for server in servers:
                await pool._add(server.url, server)
        except BaseException:
            for server in servers:
                server.kill()
            raise
        return pool

    @classmethod
    async def attach(cls, model: Path, config: RolloutConfig, run_dir: Path) -> EnginePool:
        """Use the servers at `config.urls`; they must serve the architecture of `model`."""
        pool = cls(model, config, run_dir)
        for url in config.urls:
            await pool._add(url, None)
        return pool

    async def _add(self, url: str, server: SGLangServer | None) -> None:
        engine = self._client_of(url, server)
        await engine.connect()
        self._members.append(Member(engine, server, key=str(len(self._members)).encode()))
        self.vocab_size, self.version = engine.vocab_size, engine.version
        self.max_context = min(e.max_context for e in self.engines)
        self.checksum_layout = "sglang" if all(e.checksum_layout for e in self.engines) else None

    @property
    def stream_transport(self) -> StreamTransport:
        """Of every engine, replacements included."""
        return self._transport

    @stream_transport.setter
    def stream_transport(self, transport: StreamTransport) -> None:
        self._transport = transport
        for engine in self.engines:
            engine.stream_transport = transport

    def _client_of(self, url: str, server: SGLangServer | None) -> SGLangEngine:
        config = self._config
        engine = SGLangEngine(
            url,
            self._model,
            api_key=server.api_key if server else named_key(config.api_key_variable, os.environ),
            deterministic=config.deterministic,
            generate_timeout_s=config.generate_timeout_s,
            control_timeout_s=config.control_timeout_s,
            probe_timeout_s=config.probe_timeout_s,
        )
        engine.stream_transport = self._transport
        return engine

    @property
    def engines(self) -> tuple[SGLangEngine, ...]:
        return tuple(member.engine for member in self._members)

    @property
    def servers(self) -> tuple[SGLangServer, ...]:
        return tuple(member.server for member in self._members if member.server)

    # Requests

    async def generate(
        self, prompt_ids: tuple[int, ...], sampling: Sampling, *, seed: int, request_id: str
    ) -> Generation:
        check_request(prompt_ids, sampling, vocab_size=self.vocab_size, max_context=self.max_context)
        return await self._on_some_engine(
            prompt_ids, lambda e: e.generate(prompt_ids, sampling, seed=seed, request_id=request_id)
        )

    async def score(self, ids: tuple[int, ...], start: int) -> tuple[float, ...]:
        check_request(ids, None, vocab_size=self.vocab_size, max_context=self.max_context)
        return await self._on_some_engine(ids, lambda e: e.score(ids, start))

    async def _on_some_engine(self, ids: Sequence[int], call: Callable[[SGLangEngine], Awaitable[T]]) -> T:
        """Run `call` on the preferred engine; on another one for every engine that dies meanwhile."""
        self._supervise()
        for _ in range(len(self._members) + 1):
            member = await self._choose(ids)
            member.load += 1
            try:
                return await call(member.engine)
            except EngineError as e:
                if await self._answers(member):
                    raise
                failure = e
            finally:
                member.load -= 1
        raise failure

    async def _choose(self, ids: Sequence[int]) -> Member:
        """The live engine that ranks first for this prompt and is not overloaded; waits while there is none."""
        live = await self._live()
        head = array("I", ids[:AFFINITY_TOKENS]).tobytes()
        ranked = sorted(live, key=lambda m: hashlib.blake2b(m.key + head, digest_size=8).digest())
        limit = OVERLOAD_FLOOR + OVERLOAD * sum(m.load for m in live) / len(live)
        return next((m for m in ranked if m.load <= limit), ranked[0])

    async def _live(self) -> list[Member]:
        """The engines that are up; while there is none, waits for a replacement. EngineError: none comes."""
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                while not (live := [m for m in self._members if m.up]):
                    if all(m.lost for m in self._members):
                        raise EngineError(f"no engine can be replaced{self._troubles()}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            waited = f"no engine came back within {self._config.start_timeout_s:g} s"
            raise EngineError(f"{waited}{self._troubles()}") from None
        return live

    async def abort(self, request_id: str | None = None) -> None:
        await self._each(lambda e: e.abort(request_id))

    # Control

    async def pause(self, mode: PauseMode = "retract") -> None:
        self._paused = mode
        await self._each(lambda e: e.pause(mode))

    async def resume(self) -> None:
        self._paused = None
        await self._each(lambda e: e.resume())

    async def flush(self) -> None:
        await self._each(lambda e: e.flush())

    async def health(self) -> Health:
        each = await asyncio.gather(*(m.engine.health() for m in self._members))
        details = "; ".join(h.detail for h in each if h.detail)
        return Health(any(h.serving for h in each), self._paused is not None, self.version, details)

    async def checksums(self) -> Mapping[str, str]:
        """The tensors' hashes; where engines disagree, all of theirs, which equals no trainer's."""
        every = await self._each(lambda e: e.checksums())
        names = {name for one in every for name in one}
        return {name: "|".join(sorted({one.get(name, "missing") for one in every})) for name in names}

    async def close(self) -> None:
        """Stop what was started here; servers given by URL go on."""
        tasks = [t for t in (self._supervision, *(m.replacement for m in self._members)) if t]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(m.engine.close() for m in self._members))
        await asyncio.gather(*(server.stop() for server in self.servers))
        self._copies.close()

    # Weights

    async def update_weights(self, source: Path | Iterable[NamedTensor], version: int) -> None:
        """Like every engine's; a stream is copied to disk on its way, for servers that must be replaced later.

        An engine that died since the last request is found and replaced first: a stream cannot begin again.
        """
        while not any(await asyncio.gather(*(self._answers(m) for m in await self._live()))):
            pass
        async with self._updating:
            if isinstance(source, Path):
                await self._each(lambda e: e.update_weights(source, version))
                self._current = (source, version)
            else:
                await self._update_from_stream(self._copies.tee(source, version), version)
                self._current = (self._copies.path(version), version)
            self.version = version

    async def begin_update(self) -> None:
        await self._each(lambda e: e.begin_update())

    async def load_bucket(self, bucket: Bucket, *, final_version: int | None = None) -> None:
        await self._each(lambda e: e.load_bucket(bucket, final_version=final_version))

    async def end_update(self) -> None:
        await self._each(lambda e: e.end_update())

    async def _each(self, call: Callable[[SGLangEngine], Awaitable[T]]) -> list[T]:
        """Run `call` on every live engine; one that fails is replaced. Raises when none succeeded."""
        live = [m for m in self._members if m.up]
        results = await asyncio.gather(*(call(m.engine) for m in live), return_exceptions=True)
        done: list[T] = []
        errors: list[EngineError] = []
        for member, result in zip(live, results, strict=True):
            if isinstance(result, EngineError):
                errors.append(result)
                if not await self._answers(member) or not (await member.engine.health()).serving:
                    self._lose(member)
            elif isinstance(result, BaseException):
                raise result
            else:
                done.append(result)
        if not done:
            raise errors[0] if errors else EngineError(f"no engine is up{self._troubles()}")
        return done

    # Supervision

    async def _answers(self, member: Member) -> bool:
        """Whether an engine that just failed still lives; one that does not is taken out and replaced."""
        dead = member.server is not None and not member.server.alive
        if not dead and (await member.engine.answers(idle=not member.load)):
            return True
        self._lose(member)
        return False

    def _lose(self, member: Member) -> None:
        if member.up:
            member.up = False
            member.misses, member.trouble = 0, None
            member.replacement = asyncio.create_task(self._replace(member), name=f"replace {member.engine.name}")
            member.replacement.add_done_callback(lambda task: self._replaced(member, task))

    def _replaced(self, member: Member, task: asyncio.Task[None]) -> None:
        """Wake the requests that wait: for the engine that is back, or for the reason why it is not."""
        if not task.cancelled() and (error := task.exception()):
            member.trouble = error
            logger.error("%s is lost for good: %s: %s", member.engine.name, type(error).__name__, error)
        self._changed.set()

    def _troubles(self) -> str:
        """What keeps engines from coming back, to append to a sentence."""
        found = dict.fromkeys(f"{type(m.trouble).__name__}: {m.trouble}" for m in self._members if m.trouble)
        return "".join(f"; {text}" for text in found)

    async def _replace(self, member: Member) -> None:
        """Bring a member back with the current weights: a new server where it is ours, the same URL where not."""
        if member.server is not None:
            # First of all: a hung server would keep its requests, and our farewell, waiting for their deadlines.
            await asyncio.to_thread(member.server.kill)
        await member.engine.close()
        while True:
            try:
                await self._revive(member)
            except (EngineError, UsageError) as e:
                member.trouble = e
                await asyncio.sleep(self._config.probe_interval_s)
                continue
            self.replacements += 1
            return

    async def _revive(self, member: Member) -> None:
        url = member.engine.url
        if member.server is not None:
            member.server.kill()  # what an attempt before this one has started
            member.server.start()
            await member.server.wait_ready()
            url = member.server.url
        engine = self._client_of(url, member.server)
        await engine.connect()
        async with self._updating:  # no update may pass between loading the weights and joining the others
            path, version = self._current
            await engine.update_weights(path, version)
            if self._paused:
                await engine.pause(self._paused)
            member.engine, member.up = engine, True

    def _supervise(self) -> None:
        """Have the running loop look after the engines (tasks end with their loop, so each loop needs its own)."""
        if self._supervision is None or self._supervision.done() or _foreign(self._supervision):
            self._supervision = asyncio.create_task(self._watch(), name="rollout supervision")

    async def _watch(self) -> None:
        """Probe every engine now and then; replace one that died, or missed several probes (it hangs)."""
        while True:
            await asyncio.sleep(self._config.probe_interval_s)
            await asyncio.gather(*(self._probe(member) for member in self._members if member.up))

    async def _probe(self, member: Member) -> None:
        if member.server is not None and not member.server.alive:
            self._lose(member)
            return
        member.misses = 0 if await member.engine.answers() else member.misses + 1
        if member.misses >= MISSES_BEFORE_REPLACEMENT:
            self._lose(member)


def _foreign(task: asyncio.Task[None]) -> bool:
    return task.get_loop() is not asyncio.get_running_loop()
