"""Sessions of our own in the form of OdysSim's rows (fields in the JSON text `raw`), with ratings."""

from __future__ import annotations

import json
from typing import Any


def _record(source: str, number: int, **fields: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "placeholder"}]
    return {"data_source": source, "prompt": prompt, "extra_info": {"index": number, "raw": json.dumps(fields)}}


def _trait(name: str, answer: str) -> dict[str, str]:
    return {"Feature Name": name, "Feature Question Answer": answer}


MATH: tuple[dict[str, Any], ...] = (
    _record(
        "sim_arena_math",
        0,
        problem="A rope of 24 m encloses a rectangle. What is the largest area?",
        user_profile_text="A student who types in fragments and never capitalises anything at all.",
        human_user_queries=["how do i even start with this", "so both sides 6?", "ok 36 then, thx"],
        human_public_conversation=[
            {"role": "user", "content": "how do i even start with this"},
            {"role": "assistant", "content": "What do width and height add up to?"},
            {"role": "user", "content": "so both sides 6?"},
            {"role": "assistant", "content": "Yes. And the area?"},
            {"role": "user", "content": "ok 36 then, thx"},
        ],
        target_interaction_style_features=[
            _trait("Message length", "Very short, one line."),
            _trait("Clarification", "Asks to confirm a guess."),
        ],
        target_writing_style_features=[_trait("Capitals", "None.")],
        rating=6,
    ),
    _record(
        "sim_arena_math",
        1,
        problem="How many two-digit numbers are divisible by 7?",
        user_profile_text="",
        human_user_queries=["Please explain each step to me, I want to understand."],
        human_public_conversation=[],
        rating=8,
    ),
)
DOC: tuple[dict[str, Any], ...] = (
    _record(
        "sim_arena_doc",
        0,
        document_type="email",
        intent="Decline an invitation to a reunion without hurting anybody.",
        pre_writing_materials_text="The reunion is in May. I have small children.",
        user_profile_text="A blunt person who gives orders in few words and dislikes flattery.",
        human_user_queries=["write it short", "no, warmer. and cut the second part"],
        human_public_conversation=[
            {"role": "user", "content": "write it short"},
            {"role": "assistant", "content": "Dear all, I cannot come. Best wishes."},
            {"role": "user", "content": "no, warmer. and cut the second part"},
        ],
        target_writing_style_features=[_trait("Punctuation", "Sparse.")],
        target_interaction_style_features=[_trait("Feedback", "Direct orders.")],
        rating=9,
        target_document_preferences="Short, warm, no excuses.",
    ),
)
