"""What the customer is asked at the end, and how far two people's answers agree. Pure.

A question without a valid answer agrees with nobody: answering is never worse than not answering.
"""

from __future__ import annotations

from collections.abc import Mapping

from common.text import json_in

QUESTIONS: Mapping[str, tuple[str, int]] = {
    "task_success": ("Was your request settled?", 5),
    "efficiency": ("How quickly did you get there?", 4),
    "question_amount_preference": ("Was the number of questions right? 1: too many or too few, 2: right", 2),
    "answer_effort_time": ("How little effort were the agent's questions? 1: much effort", 3),
    "human_like": ("Was the agent like a person?", 3),
    "interaction_flow": ("How smoothly did it go?", 4),
    "overall_score": ("The agent as a whole?", 5),
    "reuse": ("Would you come back to this agent?", 5),
}
"""Field → (question, highest answer); 1 is the worst."""
Answers = Mapping[str, int]


def prompt() -> str:
    """The survey, as a message to the customer."""
    listed = "\n".join(f"- {name} (1 to {most}): {text}" for name, (text, most) in QUESTIONS.items())
    return (
        f"The conversation is over. Please answer as the person you are; 1 is the worst answer.\n{listed}\n"
        'Reply with one JSON object of numbers only, e.g. {"task_success": 3, …}.'
    )


def read(text: str) -> dict[str, int]:
    """The valid answers in a reply; none when it is no JSON object."""
    start, end = text.find("{"), text.rfind("}")
    found = json_in(text[start : end + 1]) if start >= 0 else None
    if not isinstance(found, dict):
        return {}
    return {name: found[name] for name in QUESTIONS if valid(name, found.get(name))}


def valid(name: str, answer: object) -> bool:
    """Whether `answer` is one of the question's."""
    return isinstance(answer, int) and not isinstance(answer, bool) and 1 <= answer <= QUESTIONS[name][1]


def agreement(real: Answers, simulated: Answers) -> float | None:
    """Mean of 1 - distance on [0, 1] over the questions the real person answered; None where there is none."""
    values = []
    for name, answer in real.items():
        span = QUESTIONS[name][1] - 1
        values.append(1 - abs(answer - simulated[name]) / span if name in simulated else 0.0)
    return sum(values) / len(values) if values else None
