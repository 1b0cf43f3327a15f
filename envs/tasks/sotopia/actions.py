"""Reading a turn as one of Sotopia's actions. Pure.

strict: a turn is one JSON object, or plain words, which are speech; a broken object or an empty turn is a format
error.
soul (OdysSim): the longest JSON object anywhere counts; without one all is speech; an empty turn is "none".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from common.text import json_in
from envs.env import FormatError
from envs.tasks.sotopia.prompts import ACTIONS

FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
WORDLESS = ("leave", "none")
MAX_CHARS = 4000


@dataclass(frozen=True)
class Action:
    """What a person does in a turn."""

    kind: str
    argument: str = ""

    @property
    def acts(self) -> bool:
        """Something that the other can perceive."""
        return self.kind not in WORDLESS and bool(self.argument)

    def shown(self, name: str) -> str:
        """How the other perceives it."""
        if self.kind == "leave":
            return f"{name} leaves the conversation."
        if not self.acts:
            return f"{name} does nothing."
        return f'{name} says: "{self.argument}"' if self.kind == "speak" else f"{name} ({self.kind}): {self.argument}"


def read_action(text: str, *, lenient: bool = False) -> Action | FormatError:
    """The action of a turn."""
    body = text.strip()
    fenced = FENCE.match(body)
    body = fenced.group(1) if fenced else body
    if not body:
        return Action("none") if lenient else FormatError("an empty turn")
    found = _object(body)
    if found is None and lenient:
        found = _longest_object(body)
    if found is None:
        if lenient or not body.startswith("{"):
            return Action("speak", body[:MAX_CHARS])
        return FormatError("a JSON object that is broken or no action")
    return found


def _longest_object(body: str) -> Action | None:
    """The action of the longest JSON object anywhere in a text."""
    decoder, found = json.JSONDecoder(), [""]
    for start in (i for i, letter in enumerate(body) if letter == "{"):
        try:
            _, end = decoder.raw_decode(body, start)
        except (ValueError, RecursionError):
            continue
        found.append(body[start:end])
    return _object(max(found, key=len))


def _object(body: str) -> Action | None:
    value = json_in(body)
    if not isinstance(value, dict) or value.get("action_type") not in ACTIONS:
        return None
    argument = value.get("argument", "")
    if not isinstance(argument, str):
        return None
    kind = str(value["action_type"])
    if kind not in WORDLESS and not argument.strip():
        return None
    return Action(kind, "" if kind in WORDLESS else argument.strip()[:MAX_CHARS])
