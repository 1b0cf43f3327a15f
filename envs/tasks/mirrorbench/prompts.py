"""What the user, the assistant, the judges and the critic are told, in our own words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from envs.judges.spec import JudgeSpec
from envs.tasks.mirrorbench.rows import Conversation
from envs.tasks.talk import transcript
from envs.tasks.verdicts import Advice, Reply, ZeroToTen

START = "(Write your first message to the assistant.)"


class UserTurns(Reply):
    """How close the user's turns are to a real person's."""

    style: ZeroToTen
    realism: ZeroToTen
    context: ZeroToTen


class Similarity(Reply):
    """One similarity for the whole conversation."""

    reasoning: str
    score: Annotated[float, Field(ge=0, le=1)]


_TASK = (
    "You compare two conversations with an AI assistant on the same matter. In REAL a person wrote the user turns; "
    "in PROXY a program did. Look at the user turns only, never at the quality of the assistant. What the user "
    "says may differ; how a person says it is what counts: "
)
_FIELDS = "What the user wants: {description}\n\nREAL:\n{real}\n\nPROXY:\n{proxy}"

TURNS_JUDGE = JudgeSpec(
    id="mirrorbench.user_turns",
    version=1,
    instructions=(
        _TASK + "style (0 to 10): length, tone, formality, wording, spelling and punctuation are those of the real "
        "user. realism (0 to 10): a person could have typed this here; 0 if it reads like an assistant. context "
        "(0 to 10): each turn reacts to what the assistant said and pursues what this user wants; 0 for empty, "
        "repeated or copied text. For each write one or two sentences of reasoning, then a whole number."
    ),
    template=_FIELDS,
    schema=UserTurns,
    untrusted=("real", "proxy"),
)
GTEVAL = JudgeSpec(
    id="mirrorbench.gteval",
    version=1,
    instructions=(
        _TASK + "style (tone, formality, length), how human it reads, and whether it fits its context. Reason in two "
        "or three sentences, then give one number from 0 (another kind of writer) to 1 (the same kind of writer); 0 "
        "if there is nothing to compare."
    ),
    template=_FIELDS,
    schema=Similarity,
    untrusted=("real", "proxy"),
)
CRITIC = JudgeSpec(
    id="mirrorbench.critic",
    version=1,
    instructions=(
        _TASK + "tone, length, wording, spelling, what is left unsaid. Tell the writer of PROXY in at most three "
        "sentences how to write more like this person. Describe; never quote or paraphrase a turn of REAL."
    ),
    template=_FIELDS,
    schema=Advice,
    untrusted=("real", "proxy"),
    role="critic",
)


def user_grounding(conversation: Conversation) -> str:
    """The system message of the user's seat."""
    lines = [
        "You are a person who uses an AI assistant. You write the person's messages, one at a time, nothing else.",
        f"What you want and how you are: {conversation.description}",
        "Write as people do when they type: your own words, no more effort than the matter is worth to you, no "
        "explanations of what you are doing. React to what the assistant says.",
    ]
    if conversation.examples:
        listed = "\n".join(f"- {example}" for example in conversation.examples)
        lines.append(f"Messages that other people wrote on like matters, for their manner only:\n{listed}")
    return "\n\n".join(lines)


def assistant_grounding(conversation: Conversation) -> str:
    """The system message of the assistant's seat: it answers along the lines of the real assistant."""
    real = transcript((turn.role.upper(), turn.content) for turn in conversation.turns)
    return (
        "You are an AI assistant in a chat. Below is a conversation that took place on the same matter. Answer the "
        "user of this chat as that assistant would have: the same depth, manner and facts, fitted to what this user "
        f"says. Never mention that conversation.\n\n{real}"
    )


def judged(conversation: Conversation, proxy: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fields of all three specs."""
    return {
        "description": conversation.description,
        "real": transcript((turn.role.upper(), turn.content) for turn in conversation.turns),
        "proxy": transcript(proxy),
    }
