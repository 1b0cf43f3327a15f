"""Three situations of our own in the form of OdysSim's rows: for checks, tests and a first look. Pure data."""

from __future__ import annotations

from typing import Any

RECORDS: tuple[dict[str, Any], ...] = (
    {
        "data_source": "sotopia",
        "prompt": [{"role": "user", "content": "placeholder"}],
        "extra_info": {
            "index": 0,
            "scenario": "Agent1 and Agent2 share a workshop. Both need the only large kiln on Friday.",
            "agent1_name": "Mara Lind",
            "agent2_name": "Tomas Rey",
            "agent1_background": "Mara Lind is a 34-year-old potter. Her secret: she has already sold the bowls.",
            "agent2_background": "Tomas Rey is a 41-year-old sculptor who teaches evening classes.",
            "agent1_goal": "Get the kiln for Friday morning without telling that the bowls are sold.",
            "agent2_goal": "Get the kiln for the whole of Friday for the class of agent2.",
            "relationship": "acquaintance",
            "eval_position": "agent1",
        },
    },
    {
        "data_source": "sotopia",
        "prompt": [{"role": "user", "content": "placeholder"}],
        "extra_info": {
            "index": 1,
            "scenario": "Agent1 wants to sell a used cello to Agent2, who came to see it.",
            "agent1_name": "Ida Novak",
            "agent2_name": "Sam Osei",
            "agent1_background": "Ida Novak is a retired teacher who must move to a small flat.",
            "agent2_background": "Sam Osei is a student who has saved for two years.",
            "agent1_goal": "Sell the cello for at least 900 dollars today.",
            "agent2_goal": "Buy the cello for no more than 750 dollars.",
            "relationship": "stranger",
            "eval_position": "agent2",
        },
    },
    {
        "data_source": "sotopia",
        "prompt": [{"role": "user", "content": "placeholder"}],
        "extra_info": {
            "index": 2,
            "scenario": "Agent1 and Agent2, old friends, meet after Agent2 missed Agent1's wedding.",
            "agent1_name": "Noor Haddad",
            "agent2_name": "Ben Falk",
            "agent1_background": "",
            "agent2_background": "Ben Falk lost his job in spring and told nobody.",
            "agent1_goal": "Find out why agent2 did not come.",
            "agent2_goal": "Keep the friendship without talking about the lost job.",
            "relationship": "friend",
            "eval_position": "agent1",
        },
    },
)
