"""Two scenes of our own in the form of OdysSim's rows: for checks, tests and a first look. Pure data."""

from __future__ import annotations

import json
from typing import Any

_MILL: dict[str, Any] = {
    "book": "The Mill at Ravn",
    "i_p": 4,
    "i_c": 0,
    "plot": {
        "i_p": 4,
        "summary": "The miller's daughter learns that her father has pawned the mill, and confronts him.",
        "key_characters": [
            {"name": "Ansa", "description": "The miller's daughter, quick and proud."},
            {"name": "Old Henrik", "description": "The miller, who would rather joke than confess."},
        ],
    },
    "scenario": "Evening in the mill. The stones stand still for the first time in years.",
    "speaking_characters_w_env": ["Ansa", "Old Henrik", "Environment"],
    "major_characters": ["Ansa", "Old Henrik"],
    "key_characters": [
        {"name": "Ansa", "motivation": "I have seen the lender's letter and want to hear it from him."},
        {"name": "Old Henrik", "thought": "She must not find out before I have won the money back."},
    ],
    "character_profiles": {
        "Ansa": "Nineteen; keeps the books; hates to be spared the truth.",
        "Old Henrik": "Sixty; generous, careless with money, ashamed of it.",
    },
    "dialogues": [
        {"character": "Ansa", "message": "[He will not look at me.] Why is it so quiet, father?"},
        {"character": "Old Henrik", "message": "(laughs) The stones wanted a holiday, and I gave them one."},
        {"character": "Environment", "message": "A moth circles the lamp."},
        {"character": "Ansa", "message": "(puts the letter on the table) Then read me this."},
    ],
}
_FERRY: dict[str, Any] = {
    "book": "Last Ferry",
    "i_p": 1,
    "i_c": 2,
    "plot": {"i_p": 1, "summary": "Three strangers miss the last ferry.", "key_characters": []},
    "scenario": "A pier at night. The ferry's lights are small already.",
    "speaking_characters_w_env": ["Environment", "Lise", "The Captain", "Odd"],
    "major_characters": ["Lise", "Odd"],
    "key_characters": [{"name": "Lise", "motivation": "My sister waits on the other side and I have lied to her."}],
    "character_profiles": {"Lise": "A nurse on leave.", "Odd": "A salesman of hearing aids."},
    "dialogues": [
        {"character": "Environment", "message": "Rain begins to fall on the planks."},
        {"character": "Lise", "message": "[No, no.] It cannot be gone. It is not ten yet!"},
    ],
}


def _record(number: int, circumstance: Any, **extra: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "placeholder"}]
    return {
        "data_source": "coser",
        "prompt": prompt,
        "extra_info": {"index": number, "circumstance": circumstance, "wo_thought": False, **extra},
    }


RECORDS: tuple[dict[str, Any], ...] = (
    _record(0, json.dumps(_MILL), continue_from=0),
    _record(1, _FERRY, continue_from=1),
)
