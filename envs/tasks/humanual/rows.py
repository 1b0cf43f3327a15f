"""HUMANUAL rows: OdysSim's records (persona, prompt, completion) and the authors' raw ones. Pure.

The prompt is a text, or a thread of messages, as a list or as the JSON text of one. In the authors' records the role
of a message is its writer, so that the person's own earlier messages are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from envs.tasks.files import field, loads
from envs.tasks.reading import Made, Reader, cluster_of
from envs.tasks.schema import RowData, checked

PERSON = "you"
"""The writer of the person's own messages in a thread."""


class Turn(RowData):
    """One message of the thread; `writer` is empty where the row does not say."""

    writer: str
    text: str


class Thread(RowData):
    """What a person read, and what the person wrote then."""

    persona: str
    thread: tuple[Turn, ...] = Field(min_length=1)
    completion: str = Field(min_length=1)
    """The person's own reply: judges and critics see it, the policy never does."""

    @property
    def context(self) -> str:
        """The thread as one text, writers named where several wrote."""
        named = len({turn.writer for turn in self.thread}) > 1
        return "\n\n".join(f"{turn.writer}: {turn.text}" if named else turn.text for turn in self.thread)


def reader(part: str) -> Reader:
    """The reader of one of the six sources."""
    name = f"humanual_{part}"
    return Reader(name, make, (name, f"humanual-{part}", "humanual"))


def make(record: Mapping[str, Any], where: str) -> Made:
    """The row of one record."""
    user = str(record.get("user_id") or "")
    persona = str(record.get("persona") or "").strip()
    values = {
        "persona": persona,
        "thread": _thread(field(record, "prompt", where=where), user),
        "completion": str(field(record, "completion", where=where)).strip(),
    }
    data = checked(Thread, values, where)
    # One person wrote several rows; without a name the persona stands for the person.
    yield user or cluster_of(persona or data.context), data


def _thread(prompt: Any, user: str) -> tuple[Turn, ...]:
    if isinstance(prompt, str):
        try:
            parsed = loads(prompt.encode())
        except ValueError:
            parsed = None
        if not isinstance(parsed, list):
            return (Turn(writer="", text=prompt.strip()),) if prompt.strip() else ()
        prompt = parsed
    turns = []
    for message in prompt:
        writer, text = str(message.get("role") or ""), str(message.get("content") or "").strip()
        if text:
            turns.append(Turn(writer=PERSON if user and writer == user else writer, text=text))
    return tuple(turns)
