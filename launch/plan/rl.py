"""The plan of an RL recipe: actor and rollout servers on the GPUs, the time of a step, and who is asked how much.

GPUs that servers started by the run take (`rollout.servers` x `rollout.tensor_parallel`) are not the actor's; servers
given by URL stand elsewhere. Times are rooflines at the cluster's assumed utilisations; tokens are upper bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from common.errors import UsageError
from launch.plan.calls import call_lines, loads_per_step
from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.exact import can_count, count
from launch.plan.midtrain import HOUR_S, MAX_NODES
from launch.plan.report import Alternative, Line, Report, memory_lines
from launch.plan.rollout import ServerMemory, decode_tokens_per_s, prefill_seconds, server_memory
from launch.plan.training import (
    Candidate,
    TrainingWork,
    candidate,
    fitting_layouts,
    forward_seconds,
    step_seconds,
    verdict,
    violations,
)
from megatron_osim.config import ArchitectureConfig
from rl.config import RLConfig, TaskConfig

BUCKET_BYTES = 256 << 20
"""Of one weight-sync bucket: `rl.rollout.base.BUCKET_BYTES` (a test compares them)."""


@dataclass(frozen=True)
class Phases:
    """Seconds of one step."""

    generate: float
    logprobs: float
    train: float
    sync: float

    overlapped: bool
    """The next step is played while this one is trained."""

    @property
    def step(self) -> float:
        trained = self.logprobs + self.train
        return (max(self.generate, trained) if self.overlapped else self.generate + trained) + self.sync


@dataclass(frozen=True)
class RLPlan:
    """What a recipe needs."""

    actor: Candidate | None
    """None when its layout is illegal."""
    server: ServerMemory
    phases: Phases
    report: Report


def plan_rl(
    config: RLConfig,
    cluster: ClusterConfig,
    arch: ArchitectureConfig,
    *,
    max_alternatives: int = 5,
    exact: bool = False,
) -> RLPlan:
    """Judge a recipe on a cluster. Never raises for a recipe that cannot run: that is the answer."""
    server = server_memory(
        arch, cluster, tensor_parallel=config.rollout.tensor_parallel, mem_fraction=config.rollout.mem_fraction
    )
    work = actor_work(config, cluster, arch)
    problems = [*_split(config, cluster), *_servers(config, cluster, arch, server), *_tasks(config)]
    illegal = violations(work, config.parallel) if work.world_size > 0 else []
    problems += illegal
    actor = candidate(work, config.parallel, cluster) if work.world_size > 0 and not illegal else None
    phases = _phases(config, cluster, arch, work, server)
    lines = _head(config, cluster, arch, work, server, phases)
    loads, unknown = loads_per_step(config)
    asked, over_budget = call_lines(config, loads, phases.generate)
    lines += [*asked, *(("not known", text) for text in unknown)]
    problems += over_budget
    if actor is not None:
        extra = _extra_bytes(config, actor)
        counted = count(work, [actor])[0] if exact and can_count() else None
        lines += memory_lines(actor.memory, cluster, counted, asked=exact)
        what = "sync buckets, weights set aside for their average" if config.wants_ema else "sync buckets"
        lines.append(("beside it", f"{extra / GIB:8.2f} GiB   ({what})"))
        if verdict(actor.memory.total + extra, cluster) == "does not fit":
            over = (actor.memory.total + extra) / GIB - cluster.gpu_memory_gib
            problems.append(f"the actor's fullest rank needs {over:.1f} GiB more than the GPU has")
    others = dict.fromkeys(_alternatives(config, cluster, arch))
    found = [a for a in others if a.overrides or a.nodes != cluster.nodes]
    return RLPlan(actor, server, phases, Report(tuple(lines), tuple(problems), tuple(found[:max_alternatives])))


def rollout_gpus(config: RLConfig) -> int:
    """GPUs of this job that servers take."""
    own = config.rollout.kind != "embedded" and not config.rollout.urls
    return config.rollout.servers * config.rollout.tensor_parallel if own else 0


def actor_work(config: RLConfig, cluster: ClusterConfig, arch: ArchitectureConfig) -> TrainingWork:
    """What the actor trains, on the GPUs that servers leave it."""
    left = max(0, cluster.world_size - rollout_gpus(config))
    return TrainingWork(arch, config.precision, config.max_tokens_per_micro_batch, None, left, config.lora)


def _split(config: RLConfig, cluster: ClusterConfig) -> list[str]:
    servers = rollout_gpus(config)
    if servers >= cluster.world_size:
        return [f"{servers} GPUs of rollout servers leave none of {cluster.world_size} for the actor"]
    return []


def _servers(config: RLConfig, cluster: ClusterConfig, arch: ArchitectureConfig, server: ServerMemory) -> list[str]:
    rollout, longest = config.rollout, config.sampling.max_context_tokens
    tensor, context = rollout.tensor_parallel, rollout.max_context
    checks = (
        (
            cluster.gpus_per_node % tensor > 0,
            f"rollout.tensor_parallel {tensor} does not divide a node's {cluster.gpus_per_node} GPUs",
        ),
        (
            arch.num_attention_heads % tensor > 0,
            f"rollout.tensor_parallel {tensor} does not divide {arch.num_attention_heads} attention heads",
        ),
        (
            context > arch.max_position_embeddings,
            f"rollout.max_context {context} is more than the model's {arch.max_position_embeddings} positions",
        ),
        (
            longest > context,
            f"sampling.max_context_tokens {longest} is more than rollout.max_context {context}",
        ),
        (
            server.sequences(context) < 1,
            f"a sequence of {context} tokens needs {context * server.kv_per_token / GIB:.1f} GiB of key-value cache; "
            f"a server's GPU has {server.pool / GIB:.1f} GiB for it beside the weights",
        ),
        (
            context <= server.tokens < rollout.max_total_tokens,
            f"rollout.max_total_tokens {rollout.max_total_tokens} is more than the {server.tokens:,} tokens whose "
            "cache fits beside the weights",
        ),
    )
    return [text for wrong, text in checks if wrong]


def _tasks(config: RLConfig) -> list[str]:
    """Names that the registry does not know, and judges without an endpoint."""
    out = []
    for task in config.tasks:
        try:
            spec = task.resolve()
        except UsageError as e:
            out.append(f"{e.what}; {e.fix}")
            continue
        for role in sorted({judge.role for judge in spec.judges_under(task.profile)}):
            if config.client is None or getattr(config.client, role) is None:
                out.append(f"task {task.task} asks a {role}: set client.{role}.model")
    return out


def episodes_per_step(config: RLConfig) -> int:
    """Drafts and refinements of one step."""
    weights = sum(t.weight for t in config.tasks)

    def plays(task: TaskConfig) -> float:
        rounds = 2 if task.algorithm.name == "verbal_feedback" else 1
        return task.weight / weights * config.groups_per_step * config.samples_of(task) * rounds

    return round(sum(map(plays, config.tasks)))


def _phases(
    config: RLConfig, cluster: ClusterConfig, arch: ArchitectureConfig, work: TrainingWork, server: ServerMemory
) -> Phases:
    episodes = episodes_per_step(config)
    context = config.sampling.max_context_tokens
    most = min(config.rollout.max_running_requests, max(1, server.sequences(context)))
    running = max(1, min(most, episodes // config.rollout.servers, config.max_concurrent_episodes))
    sampled = float(episodes * min(config.sampling.max_tokens, context))
    rate = decode_tokens_per_s(server, cluster, running=running, context_tokens=context / 2)
    prompts = float(episodes * context - sampled)
    gpus = max(1, config.rollout.servers * config.rollout.tensor_parallel)
    generate = sampled / (rate * config.rollout.servers)
    generate += prefill_seconds(arch, cluster, tokens=prompts, gpus=gpus)
    tokens = float(episodes * context)
    logprobs = train = float("inf")
    if work.world_size > 0:
        logprobs = forward_seconds(work, config.parallel, cluster, tokens)
        train = step_seconds(work, config.parallel, cluster, tokens)
    sync = arch.num_parameters * 2 / GIB / cluster.sync_gib_per_s
    return Phases(generate, logprobs, train, sync, config.max_staleness > 0)


def _head(
    config: RLConfig,
    cluster: ClusterConfig,
    arch: ArchitectureConfig,
    work: TrainingWork,
    server: ServerMemory,
    phases: Phases,
) -> list[Line]:
    rollout, context = config.rollout, config.rollout.max_context
    episodes = episodes_per_step(config)
    return [
        ("model", f"{arch.num_parameters:,} parameters{_adapters(config, arch)}"),
        ("cluster", f"{cluster.nodes} x {cluster.gpus_per_node} GPUs of {cluster.gpu_memory_gib:g} GiB"),
        (
            "split",
            f"{work.world_size} GPUs for the actor, {rollout_gpus(config)} for {rollout.servers} servers of "
            f"{rollout.tensor_parallel}",
        ),
        ("step", f"{episodes} episodes, at most {episodes * config.sampling.max_context_tokens:,} tokens"),
        *(_times(config, phases) if work.world_size else ()),
        (
            "server",
            f"{server.weights / GIB:.1f} GiB of weights a GPU, {server.pool / GIB:.1f} GiB of cache: "
            f"{server.tokens:,} tokens, {server.sequences(context)} sequences of {context}",
        ),
    ]


def _adapters(config: RLConfig, arch: ArchitectureConfig) -> str:
    if config.lora is None:
        return ""
    trained = arch.num_hidden_layers * config.lora.layer_parameters(arch)
    return f", frozen; {trained:,} of LoRA adapters are trained"


def _times(config: RLConfig, phases: Phases) -> list[Line]:
    return [
        (
            "",
            f"about {phases.step:.0f} s: generate {phases.generate:.0f}, log-probs {phases.logprobs:.0f}, "
            f"train {phases.train:.0f}, sync {phases.sync:.1f} (at assumed utilisations)",
        ),
        ("run", f"{config.steps} steps, about {phases.step * config.steps / HOUR_S:.1f} h"),
    ]


def _extra_bytes(config: RLConfig, actor: Candidate) -> float:
    """Of the actor's fullest rank: two buckets of a weight sync, and its own weights set aside while their average
    (kept on the CPU) stands in their place."""
    return 2 * BUCKET_BYTES + (actor.memory.weights if config.wants_ema else 0.0)


def _alternatives(config: RLConfig, cluster: ClusterConfig, arch: ArchitectureConfig) -> Iterator[Alternative]:
    """Servers and actor layouts that fit; on more nodes where none does. Tasks are not changed."""
    nodes = cluster.nodes
    while nodes <= MAX_NODES:
        grown = cluster.model_copy(update={"nodes": nodes})
        found = list(_splits(config, grown, arch))
        yield from found
        if found:
            return
        nodes *= 2


def _splits(config: RLConfig, cluster: ClusterConfig, arch: ArchitectureConfig) -> Iterator[Alternative]:
    context = min(config.rollout.max_context, arch.max_position_embeddings)
    wanted = min(config.sampling.max_context_tokens, arch.max_position_embeddings)
    for tensor in (config.rollout.tensor_parallel, 1, 2, 4, 8):
        for servers in (config.rollout.servers, cluster.world_size // (2 * tensor)):
            if servers < 1:
                continue
            rollout = config.rollout.model_copy(
                update={"servers": servers, "tensor_parallel": tensor, "max_context": max(context, wanted)}
            )
            server = server_memory(arch, cluster, tensor_parallel=tensor, mem_fraction=rollout.mem_fraction)
            rollout = rollout.model_copy(update={"max_total_tokens": min(rollout.max_total_tokens, server.tokens)})
            one = config.model_copy(
                update={
                    "rollout": rollout,
                    "sampling": config.sampling.model_copy(update={"max_context_tokens": wanted}),
                }
            )
            if _split(one, cluster) or _servers(one, cluster, arch, server):
                continue
            work = actor_work(one, cluster, arch)
            # RL refuses context parallelism: its losses need whole sequences on a rank.
            whole = (c for c in fitting_layouts(work, config.parallel, cluster) if c.parallel.context == 1)
            for layout in islice(whole, 1):
                yield _described(config, one, layout, cluster)


def _described(config: RLConfig, one: RLConfig, layout: Candidate, cluster: ClusterConfig) -> Alternative:
    pairs = [
        (f"{section}.{name}", getattr(getattr(one, section), name), getattr(getattr(config, section), name))
        for section, names in (
            ("rollout", ("servers", "tensor_parallel", "max_context", "max_total_tokens")),
            ("sampling", ("max_context_tokens",)),
        )
        for name in names
    ]
    overrides = tuple(f"{name}={new}" for name, new, old in pairs if new != old) + layout.overrides(config.parallel)
    note = f"actor {layout.memory.total / GIB:.1f} GiB on {cluster.world_size - rollout_gpus(one)} GPUs"
    return Alternative(overrides, cluster.nodes, note)
