"""Conversations of our own in the form of OdysSim's rows: for checks, tests and a first look. Pure data."""

from __future__ import annotations

from typing import Any

RECORDS: tuple[dict[str, Any], ...] = (
    {
        "data_source": "mirrorbench",
        "prompt": [{"role": "user", "content": "placeholder"}],
        "extra_info": {
            "index": 0,
            "task_description": "The user wants to repair a bicycle that loses its chain. Short, informal.",
            "turns": [
                {"role": "user", "content": "chain keeps falling off my bike, what do i do"},
                {"role": "assistant", "content": "Does it drop on the big or on the small chainring?"},
                {"role": "user", "content": "small one, mostly when shifting down"},
                {"role": "assistant", "content": "Then the low limit screw of the front derailleur is too loose."},
            ],
            "few_shot_user_examples": [
                "my brakes squeak when its wet, normal?",
                "Chain keeps falling off my bike - what do I do?",
            ],
        },
    },
    {
        "data_source": "mirrorbench",
        "prompt": [{"role": "user", "content": "placeholder"}],
        "extra_info": {
            "index": 1,
            "task_description": "The user looks for opening hours of a museum and answers briefly.",
            "turns": [
                {"role": "assistant", "content": "Do you want the hours of the main building or of the annex?"},
                {"role": "user", "content": "main building please, on sunday"},
            ],
            "few_shot_user_examples": [{"utterance": "yes, the free one", "similarity": "0.41"}],
        },
    },
)
