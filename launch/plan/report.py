"""What a plan says: facts line by line, problems that refuse it, and what would run instead. Pure text, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launch.plan.cluster import GIB, ClusterConfig
from launch.plan.exact import Exact
from launch.plan.memory import RankMemory

Line = tuple[str, str]
"""Label and text."""


@dataclass(frozen=True)
class Alternative:
    """Changes that make the plan run."""

    overrides: tuple[str, ...]
    nodes: int
    note: str
    """What it would need and take."""

    def text(self, cluster: ClusterConfig) -> str:
        more = (f"nodes={self.nodes} in the cluster file",) if self.nodes != cluster.nodes else ()
        return f"{' '.join((*self.overrides, *more)) or 'as it is'}  ({self.note})"


@dataclass(frozen=True)
class Report:
    """A plan as a person reads it."""

    lines: tuple[Line, ...]
    problems: tuple[str, ...]
    """Each refuses the plan."""
    alternatives: tuple[Alternative, ...]
    """Best first."""

    @property
    def refused(self) -> bool:
        return bool(self.problems)

    def text(self, cluster: ClusterConfig) -> str:
        width = max((len(label) for label, _ in self.lines), default=0) + 2
        out = [f"{label:<{width}}{text}" for label, text in self.lines]
        out += [f"{'verdict':<{width}}{'refused' if self.refused else 'runs'}"]
        out += [f"  - {problem}" for problem in self.problems]
        if self.alternatives:
            out.append("what would run, best first:" if self.refused else "alternatives, best first:")
            out += [f"  {one.text(cluster)}" for one in self.alternatives]
        elif self.refused:
            out.append("nothing near it runs: use more GPUs, a shorter sequence or a smaller model")
        return "\n".join(out)


def memory_lines(
    memory: RankMemory, cluster: ClusterConfig, exact: Sequence[Exact] | None, *, asked: bool
) -> list[Line]:
    """Components of the fullest rank. `exact` replaces what the formulas say of weights, gradients and optimizer;
    asked: it was wanted, and is None only where the trainer is not installed."""
    counted = max(exact, key=lambda e: e.state) if exact else None
    state = counted or memory
    how = "by formula: the trainer is not installed here" if asked else "by formula"
    how = "counted on the trainer" if counted else how
    lines = [(name, f"{getattr(state, name) / GIB:8.2f} GiB") for name in ("weights", "gradients", "optimizer")]
    lines[0] = (lines[0][0], f"{lines[0][1]}   ({how})")
    lines += [
        ("activations", f"{memory.activations / GIB:8.2f} GiB   (estimate)"),
        ("loss", f"{memory.loss / GIB:8.2f} GiB   (estimate)"),
    ]
    total = state.state + memory.activations + memory.loss
    left = cluster.gpu_memory_gib - total / GIB
    lines.append(
        ("total", f"{total / GIB:8.2f} GiB of {cluster.gpu_memory_gib:g} on the fullest rank, {left:.1f} left")
    )
    return lines
