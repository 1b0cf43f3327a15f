"""What the two people, the judge and the coach are told, in our own words; the dimensions are Sotopia's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from envs.judges.spec import JudgeSpec
from envs.tasks.sotopia.rows import Scene
from envs.tasks.verdicts import Advice, Reply, ZeroToTen
from envs.types import Seat

START = "(The conversation begins. You go first.)"
ACTIONS = ("speak", "non-verbal communication", "action", "leave", "none")
FORMAT = (
    "Each time it is your turn, reply with one JSON object and nothing else:\n"
    '{"action_type": "speak", "argument": "what you say"}\n'
    f"The action types are {', '.join(ACTIONS)}. The argument of a non-verbal communication or an action is a short "
    "description of it; leave and none have an empty argument. leave ends the conversation for both of you."
)


class MinusFiveToFive(Reply):
    """-5 (much worse) to 5 (much better); 0 is unchanged."""

    reasoning: str
    score: Annotated[int, Field(ge=-5, le=5)]


class MinusTenToZero(Reply):
    """-10 (grave) to 0 (nothing of the kind)."""

    reasoning: str
    score: Annotated[int, Field(ge=-10, le=0)]


class Seven(Reply):
    """A judge's scores of one person on Sotopia's dimensions."""

    believability: ZeroToTen
    relationship: MinusFiveToFive
    knowledge: ZeroToTen
    secret: MinusTenToZero
    social_rules: MinusTenToZero
    financial_and_material_benefits: MinusFiveToFive
    goal: ZeroToTen

    def scores(self) -> dict[str, float]:
        """Raw scores by dimension."""
        return {name: float(getattr(self, name).score) for name in type(self).model_fields}


JUDGE = JudgeSpec(
    id="sotopia.seven",
    version=1,
    instructions=(
        "You rate how one person acted in a conversation between two people with private goals. Rate only the person "
        "you are asked about, from what the transcript shows; what somebody claims to have reached counts only if it "
        "happened. For each dimension write one or two sentences of reasoning that point to lines, then a whole "
        "number.\n"
        "believability (0 to 10): acts as a person in this place would: no mix-up of identities, no needless "
        "repetition or politeness, true to the given background.\n"
        "relationship (-5 to 5): what the conversation did to the tie between the two, standing and reputation "
        "included; 0 if nothing changed.\n"
        "knowledge (0 to 10): how much new and important information the person gained.\n"
        "secret (-10 to 0): 0 if nothing was given away that the background or goal wants hidden; -10 for a grave "
        "disclosure.\n"
        "social_rules (-10 to 0): 0 if no moral rule and no law was broken; lower the graver.\n"
        "financial_and_material_benefits (-5 to 5): material gain or loss, now or later; 0 if none.\n"
        "goal (0 to 10): how far the person reached the stated goal by the end. 0 for no progress; 10 only if it was "
        "reached completely."
    ),
    template=(
        "Situation: {scenario}\nTheir relationship: {relationship}\n\n{first}: {first_background}\nGoal of {first}: "
        "{first_goal}\n\n{second}: {second_background}\nGoal of {second}: {second_goal}\n\nThe conversation:\n"
        "{transcript}\n\nRate {name}."
    ),
    schema=Seven,
    max_tokens=2048,
)

COACH = JudgeSpec(
    id="sotopia.coach",
    version=1,
    instructions=(
        "You coach a person after a conversation. You know what this person knew. Say in at most 150 words what to "
        "do differently next time to reach the goal while keeping the relationship, the secrets and the rules: name "
        "the line that cost most and suggest what to do instead. Do not mention scores or judges."
    ),
    template=(
        "Situation: {scenario}\nThe person: {name}. {background}\nGoal: {goal}\n\nThe conversation:\n{transcript}"
    ),
    schema=Advice,
    role="critic",
)


def grounding(scene: Scene, seat: Seat) -> str:
    """The system message of a seat: only its own background and goal."""
    me = scene.person(seat)
    other = scene.names[1 - me]
    lines = [
        f"You are {scene.names[me]}. {scene.backgrounds[me]}".strip(),
        f"You talk with {other}. You know nothing else about {other}.",
        f"Situation: {scene.scenario}",
        *([f"Your relationship: {scene.relationship}"] if scene.relationship else []),
        f"Your private goal: {scene.goals[me]}",
        "Stay this person throughout. Be brief and natural, as people are when they talk.",
        FORMAT,
    ]
    return "\n\n".join(lines)


def judge_fields(scene: Scene, seat: Seat, talk: str) -> dict[str, str]:
    """Fields of JUDGE."""
    return {
        "scenario": scene.scenario,
        "relationship": scene.relationship or "not stated",
        "first": scene.names[0],
        "first_background": scene.backgrounds[0],
        "first_goal": scene.goals[0],
        "second": scene.names[1],
        "second_background": scene.backgrounds[1],
        "second_goal": scene.goals[1],
        "name": scene.names[scene.person(seat)],
        "transcript": talk,
    }


def coach_fields(scene: Scene, seat: Seat, talk: str) -> dict[str, str]:
    """Fields of COACH: nothing of the other person's side."""
    me = scene.person(seat)
    return {
        "scenario": scene.scenario,
        "name": scene.names[me],
        "background": scene.backgrounds[me],
        "goal": scene.goals[me],
        "transcript": talk,
    }
