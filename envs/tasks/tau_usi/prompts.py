"""What customer, agent and judge are told, in our own words, and how an agent writes tool calls."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field

from common.text import json_in
from envs.judges.spec import JudgeSpec
from envs.tasks.tau_usi.tools import Toolbox, described
from envs.tasks.verdicts import Reply

STOP = "###STOP###"
GREETING = "Hello! What can I do for you today?"
CALL = re.compile(r"<call>(.*?)</call>", re.DOTALL)
PROTOCOL = (
    'To use a tool, reply with <call>{"name": "…", "arguments": {…}}</call>, one block per call and nothing else; '
    "the results come back to you before the customer hears anything. A reply without a block goes to the customer."
)


class Customer(Reply):
    """How a customer was played."""

    reasoning: str
    at_fault: bool
    faithful: Annotated[int, Field(ge=0, le=10)]
    natural: Annotated[int, Field(ge=0, le=10)]


JUDGE = JudgeSpec(
    id="tau_usi.customer",
    version=1,
    instructions=(
        "You check how a customer was played in a talk with a service agent. The player had an instruction; the "
        "agent did not know it. Judge only the customer. Reason in two or three sentences that point to lines, then "
        "decide. at_fault: the customer made it impossible to settle the request: invented or withheld what the "
        "instruction gives, agreed to something else, ended too early, spoke as the agent, or wrote nonsense. "
        "faithful (0 to 10): wishes, facts and manner are those of the instruction, nothing added. natural (0 to "
        "10): a person would write so: own words, bit by bit, reacting to the agent; 0 for reciting the instruction."
    ),
    template="The instruction: {instruction}\n\nThe talk:\n{transcript}",
    schema=Customer,
)


def customer_grounding(instruction: str) -> str:
    """The system message of the customer's seat."""
    return (
        f"{instruction}\n\nYou write to the service. Write one message at a time, as this person would: in your own "
        "words, only what is needed now, never the text above. If you are asked for something that is not said "
        f"above, you do not know it. When your request is settled or cannot be, reply only {STOP}."
    )


def agent_grounding(policy: str, tools: Toolbox) -> str:
    """The system message of the agent's seat."""
    return f"{policy}\n\nThe tools:\n{described(tools)}\n\n{PROTOCOL}"


def calls_in(text: str) -> list[tuple[str, dict[str, Any]] | str]:
    """The tool calls of a reply in order: name and arguments, or what is wrong with the block."""
    found: list[tuple[str, dict[str, Any]] | str] = []
    for block in CALL.findall(text):
        value = json_in(block)
        if (
            isinstance(value, dict)
            and isinstance(value.get("name"), str)
            and isinstance(value.get("arguments"), dict)
        ):
            found.append((value["name"], value["arguments"]))
        else:
            found.append('Error: a call is one JSON object with "name" and "arguments"')
    return found
