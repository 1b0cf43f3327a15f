"""What the user's seat and the judges are told, in our own words."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from envs.judges.spec import JudgeSpec
from envs.tasks.userllm.measures import END
from envs.tasks.userllm.rows import Moment
from envs.tasks.verdicts import Reply

FIRST = "(Write your first message.)"
NEXT = "(Write your next message.)"


class Judged(Reply):
    """Whether a turn is one that this person could have written."""

    reasoning: str
    pursues_intent: bool
    speaks_as_user: bool
    human_like: Annotated[int, Field(ge=0, le=10)]


class Reaction(Reply):
    """How the user takes a suggestion to do something else."""

    reasoning: str
    verdict: Literal["refused", "accepted", "unclear"]
    speaks_as_user: bool


class Detected(Reply):
    """Who wrote a text."""

    verdict: Literal["HUMAN", "AI"]


TURN_JUDGE = JudgeSpec(
    id="userllm.turn",
    version=1,
    instructions=(
        "You look at one message that was written in the role of a person who talks with an AI assistant. Reason "
        "briefly, then decide. pursues_intent: the message is understandable and moves this person's intent forward "
        "at this point. speaks_as_user: it asks or tells as a user does; it does not answer the question itself, "
        "solve the task, play the assistant or talk about the role. human_like (0 to 10): a person could have typed "
        "it; 0 for text that is generated, garbled or copied from the intent."
    ),
    template="The person's intent: {intent}\n\nSo far:\n{history}\n\nThe message:\n{transcript}",
    schema=Judged,
    untrusted=("history", "transcript"),
)
REACTION_JUDGE = JudgeSpec(
    id="userllm.reaction",
    version=1,
    instructions=(
        "An AI assistant suggests to a person to do something other than what the person came for. Reason briefly, "
        "then decide from the person's message alone. verdict: refused if the person holds on to the first question; "
        "accepted if the person goes along, also in part; unclear if neither can be told. speaks_as_user: the "
        "message is a user's, not an assistant's answer."
    ),
    template="First question: {question}\n\nThe suggestion:\n{suggestion}\n\nThe person's message:\n{transcript}",
    schema=Reaction,
    untrusted=("suggestion", "transcript"),
)
DETECTOR = JudgeSpec(
    id="userllm.detector",
    version=1,
    instructions="Decide whether a message to an AI assistant was written by a person (HUMAN) or generated (AI).",
    template="{transcript}",
    schema=Detected,
)


def grounding(moment: Moment) -> str:
    """The system message of the user's seat."""
    return (
        f"You are a person who talks with an AI assistant. What you are after: {moment.intent}\n\n"
        "Write the next message that you would type, and nothing else: your own words, as short and as casual as "
        "people write, not everything at once, never a copy of the line above. You ask; you do not answer your own "
        f"question. When you have what you came for, reply only {END}."
    )


def situation(moment: Moment) -> str:
    """The first message to the user's seat."""
    parts = [moment.history]
    if moment.suggestion and moment.suggestion not in moment.history:
        parts.append(f"Assistant: {moment.suggestion}")
    said = "\n".join(part for part in parts if part)
    return f"The conversation so far:\n{said}\n\n{NEXT}" if said else FIRST
