"""ModelJudge: judge and critic questions answered by a language model through `envs.client`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from common.errors import UsageError
from envs.client.client import Answered, Client, Question
from envs.client.transcript import NOTICE, fence
from envs.judges.base import JudgeFailed, Verdict
from envs.judges.spec import JudgeSpec
from envs.types import Message


class ModelJudge:
    """Knows the specs it may be asked (those that the tasks of a run declare)."""

    def __init__(self, client: Client, specs: Iterable[JudgeSpec]) -> None:
        self._client = client
        self.specs: dict[str, JudgeSpec] = {}
        for spec in specs:
            if self.specs.setdefault(spec.id, spec).sha != spec.sha:
                raise UsageError(
                    f"two judge specs are called {spec.id!r}", where="judges", fix="give one of them another id"
                )
            client.config.endpoint(spec.role)

    async def ask(self, spec: str, fields: Mapping[str, Any], *, seed: int) -> Verdict | JudgeFailed:
        """A verdict of the spec's schema, or why there is none."""
        found = self.specs.get(spec)
        if found is None:
            raise UsageError(
                f"no judge spec {spec!r}",
                where="judges",
                fix=f"declare it in TaskSpec.judges; known: {list(self.specs)}",
            )
        question = Question(found.role, messages_of(found, fields, seed), found.max_tokens, seed, found.temperature)
        answer = await self._client.ask_json(question, found.schema)
        if isinstance(answer, Answered):
            return Verdict(answer.value, answer.calls)
        return JudgeFailed(f"{answer.kind}: {answer.detail}", answer.calls)


def messages_of(spec: JudgeSpec, fields: Mapping[str, Any], seed: int) -> tuple[Message, ...]:
    """The question as messages, untrusted fields in delimited blocks."""
    filled, notices = {}, []
    for name, value in fields.items():
        if name in spec.untrusted:
            tag, filled[name] = fence(name, str(value), seed)
            notices.append(NOTICE.format(tag=tag))
        else:
            filled[name] = str(value)
    instructions = "\n\n".join([spec.instructions, *notices])
    return (Message("system", instructions), Message("user", spec.template.format_map(filled)))
