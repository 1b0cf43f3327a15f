"""Which rule prepares the rows of which source: exact names, never a guess from a substring.

The simulated human speaks in the assistant slot. Sources recorded the other way round are swapped; the rules and the
64 source names are those of OdysSim's midtraining corpus. Further sources are declared in the configuration.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from pydantic import Field

from common.config import Config
from common.errors import UsageError
from data_tools.conversation import ChatMessage, Role


class SourceRule(Config):
    """How the rows of one source become training conversations. Steps are applied in the order of the fields."""

    keep_last_turns: int | None = Field(default=None, ge=1)
    """Fold all but the last N non-system turns into one block of text before the first kept one, which becomes
    context: it gets the role that is not trained."""
    swap: bool = False
    """Exchange user and assistant, so that the human's turns become the assistant's."""
    add_empty_system: bool = False
    """Put an empty system message first when a row has none."""
    allow_untrained: bool = False
    """Accept a source in which no token is trained."""
    allow_all_trained: bool = False
    """Accept a source in which every content token is trained."""


SWAP = SourceRule(swap=True)
NO_SWAP = SourceRule(add_empty_system=True)
AS_IS = SourceRule()
PSYCH101 = SourceRule(swap=True, keep_last_turns=20)

CONVOKIT = (
    "IDEA-NTHU-unintended-offense-tweets", "casino", "chromium", "conversations-gone-awry",
    "conversations-gone-awry-cmv", "conversations-gone-awry-cmv-large", "emotional-support", "friends", "mediasum",
    "npr-2p", "parliament", "persuasionforgood", "reddit-coarse-discourse", "reddit-small", "small-pool", "supreme",
    "switchboard", "tennis", "wiki-articles-for-deletion", "wiki", "wikiconv-2018", "winning-args",
)  # fmt: skip
SWAPPED = (
    "wildchat", "wildchat_v1", "lmsys", "oasst1", "oasst2", "prism", "alignx", "nectar", "hh_rlhf",
    "education_dialogue", "mathdial", "studychat",
    *(f"convokit_{name}" for name in CONVOKIT),
    "dailydialog", "cornell_movie", "empathetic",
    "coser",
    *(f"humanual_{name}" for name in ("book", "chat", "email", "news", "opinion", "politics")),
    "socsci210",
)  # fmt: skip
NOT_SWAPPED = (
    "human_llm",
    *(
        f"tom_{name}"
        for name in (
            "from_coser", "socialiqa", "mindgames", "moralstories", "fantom", "hitom", "paratomi", "mmtom",
            "characterllm", "grimulkan", "tominli",
        )
    ),
    *(f"soc_{name}" for name in ("sotopia_tom_silver", "haico", "persona_conflicts", "cornell", "sotopia_pi_bc")),
    "rm_r1_sft",
)  # fmt: skip
CORPUS_SOURCES: Mapping[str, SourceRule] = {
    **dict.fromkeys(SWAPPED, SWAP),
    "psych101": PSYCH101,
    **dict.fromkeys(NOT_SWAPPED, NO_SWAP),
}
"""The 64 sources of the corpus."""
GENERIC_SOURCES: Mapping[str, SourceRule] = {
    **dict.fromkeys(("dialogue", "humanual", "experiment"), SWAP),
    "tom_sotopia": NO_SWAP,
    **dict.fromkeys(("sotopia", "chat", "step35_flash_sft"), AS_IS),
}
"""Family and post-training names that its rows may also carry."""


class Routing:
    """The rule of every known source."""

    def __init__(self, extra: Mapping[str, SourceRule] | None = None) -> None:
        self._rules = {**CORPUS_SOURCES, **GENERIC_SOURCES, **(extra or {})}

    def rule(self, source: str, *, where: str = "") -> SourceRule:
        """The rule of a source, or UsageError naming the nearest known one."""
        rule = self._rules.get(source)
        if rule is None:
            near = difflib.get_close_matches(source, self._rules, n=1)
            hint = f"; the nearest known name is {near[0]!r}" if near else ""
            raise UsageError(
                f"no routing rule for data_source {source!r}{hint}",
                where=where,
                fix=f"declare it in the configuration: sources: {{{source or 'NAME'}: {{swap: true or false}}}}",
            )
        return rule


SWAPPED_ROLE: dict[Role, Role] = {"user": "assistant", "assistant": "user", "system": "system", "tool": "tool"}


def apply_rule(
    rule: SourceRule, messages: Sequence[ChatMessage], *, strip_system: bool = False
) -> Sequence[ChatMessage]:
    """The conversation to render for a row of a source with this rule."""
    messages = reshape(rule, messages, strip_system=strip_system)
    if rule.swap:
        messages = [ChatMessage(SWAPPED_ROLE[m.role], m.content) for m in messages]
    return messages


def reshape(rule: SourceRule, messages: Sequence[ChatMessage], *, strip_system: bool) -> Sequence[ChatMessage]:
    """Everything that a rule does before it swaps."""
    if strip_system:
        messages = [m for m in messages if m.role != "system"]
    if rule.keep_last_turns is not None:
        messages = _fold(messages, rule.keep_last_turns, context_role="assistant" if rule.swap else "user")
    if rule.add_empty_system and not strip_system and not any(m.role == "system" for m in messages):
        messages = [ChatMessage("system", ""), *messages]
    return messages


def _fold(messages: Sequence[ChatMessage], keep: int, *, context_role: Role) -> Sequence[ChatMessage]:
    turns = [m for m in messages if m.role != "system"]
    if len(turns) <= keep:
        return messages
    system = [m for m in messages if m.role == "system"]
    folded = "\n".join(m.content for m in turns[: len(turns) - keep + 1])
    return [*system, ChatMessage(context_role, folded), *turns[len(turns) - keep + 1 :]]
