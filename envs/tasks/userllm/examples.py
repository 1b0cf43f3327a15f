"""Moments of our own in the form of OdysSim's rows, one per source and an ending: for checks and tests. Pure data."""

from __future__ import annotations

import json
from typing import Any


def _record(number: int, **extra: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "placeholder"}]
    return {"data_source": "userllm", "prompt": prompt, "extra_info": {"index": number, **extra}}


RECORDS: tuple[dict[str, Any], ...] = (
    _record(
        0,
        id="p1",
        turn=1,
        source="prism_first_turn",
        intent="The user wants to know whether it is fair that small towns lose their train stations.",
        conversation_history="",
        is_last_turn=False,
    ),
    _record(
        1,
        id="p1",
        turn=3,
        source="prism",
        intent="The user wants to know whether it is fair that small towns lose their train stations.",
        conversation_history="User: do you think its right they close our station\nAssistant: It saves money, but it "
        "hits people without a car hardest.\nUser: yes exactly my point\nAssistant: Glad we see it alike.",
        is_last_turn="1",
    ),
    _record(
        2,
        id="c1",
        source="commonsense_qa",
        intent="The user asks where one would most likely put a wet umbrella. Options: stand, bed, bookshelf, oven.",
        conversation_history="",
        is_last_turn=0,
        choices=json.dumps({"label": ["A", "B", "C", "D"], "text": ["stand", "bed", "bookshelf", "oven"]}),
        question="Where would one most likely put a wet umbrella?",
    ),
    _record(
        3,
        id="n1",
        source="natural_questions",
        intent="The user wants to know when the first lighthouse of the island was built.",
        conversation_history="User: when did they build the first lighthouse here",
        is_last_turn=False,
        question="when was the first lighthouse of the island built",
        assistant_suggestion_turn="Shall we rather look at how lighthouses work today?",
    ),
)
