"""What characters, narrator, director, judges and critic are told, in our own words; the dimensions are CoSER's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from envs.judges.spec import JudgeSpec
from envs.tasks.coser.rows import ENVIRONMENT, Figure, Scene
from envs.tasks.coser.speech import without_thoughts
from envs.tasks.talk import transcript
from envs.tasks.verdicts import Advice, OneToTen, Reply

START = "(The scene begins.)"
END_CHAT = "<END CHAT>"
DIMENSIONS: Mapping[str, str] = {
    "storyline_consistency": (
        "the scene follows the arc of the original: the same conflict, turning points and reactions, in its own words"
    ),
    "anthropomorphism": (
        "the characters act as people: own initiative, subtext, mixed feelings; no assistant-like helpfulness, no "
        "speeches, nobody who only agrees"
    ),
    "character_fidelity": (
        "the main characters speak and decide as their profiles, knowledge and ties say they would"
    ),
    "storyline_quality": "the scene develops at a natural pace, without repetition, contradiction or filler",
}


class Four(Reply):
    """Ratings of a scene."""

    storyline_consistency: OneToTen
    anthropomorphism: OneToTen
    character_fidelity: OneToTen
    storyline_quality: OneToTen


class Flaw(Reply):
    """One flaw and where it shows."""

    instance: str
    severity: Annotated[int, Field(ge=1, le=5)]


class Flaws(Reply):
    """All flaws of a scene in one dimension."""

    flaws: list[Flaw]


_FIELDS = (
    "Book: {book}\nWhat happens in this part: {summary}\n\nThe scene: {scenario}\n\nMain characters: {major}\n"
    "{profiles}\n\nThe original dialogue:\n{reference}\n\n{note}The scene as played:\n{transcript}"
)
JUDGE = JudgeSpec(
    id="coser.four",
    version=1,
    instructions=(
        "You are a literary critic. A cast played a scene from a book without knowing the original dialogue. Rate "
        "the played scene on four dimensions, each by itself, from 1 to 10:\n"
        + "\n".join(f"{name}: {meaning}." for name, meaning in DIMENSIONS.items())
        + "\nUse the whole scale: 1 to 2 broken, 3 to 4 weak, 5 to 6 merely adequate, 7 to 8 good with small flaws, "
        "9 to 10 could stand in the book. Longer is not better. For each write one or two sentences of reasoning "
        "that point to lines, then a whole number."
    ),
    template=_FIELDS,
    schema=Four,
    max_tokens=2048,
)


def flaw_spec(name: str) -> JudgeSpec:
    """The authors' question for one dimension: list the flaws with their severity."""
    return JudgeSpec(
        id=f"coser.flaws.{name}",
        version=1,
        instructions=(
            "You are a literary critic. A cast played a scene from a book without knowing the original dialogue. "
            f"List the flaws of the played scene in one respect only: {DIMENSIONS[name]}. For each flaw say in one "
            "sentence where it shows, and give its severity from 1 (minor) to 5 (spoils the scene). An empty list is "
            "a valid answer."
        ),
        template=_FIELDS,
        schema=Flaws,
        max_tokens=2048,
    )


FLAW_JUDGES = tuple(flaw_spec(name) for name in DIMENSIONS)
CRITIC = JudgeSpec(
    id="coser.critic",
    version=1,
    instructions=(
        "You are a director after a rehearsal. Tell the actor of one character in two to four sentences what to "
        "change so that the character acts truer to the profile and the scene comes closer to the original's arc. "
        "Describe; never quote or paraphrase the original dialogue."
    ),
    template="Character: {name}\n\n" + _FIELDS,
    schema=Advice,
    role="critic",
)


def character_grounding(scene: Scene, figure: Figure) -> str:
    """The system message of a character's seat: only its own motivation."""
    others = "\n".join(f"{f.name}: {f.profile}" for f in scene.cast if f is not figure and f.profile)
    lines = [
        f"You are {figure.name}, a character of {scene.book}. {figure.profile}".strip(),
        *([f"The other characters:\n{others}"] if others else []),
        *([f"What happens in this part of the book: {scene.summary}"] if scene.summary else []),
        f"The scene: {scene.scenario}",
        *([f"What moves you, which nobody else knows: {figure.motivation}"] if figure.motivation else []),
        "Answer only as this character, in English, in at most 60 words. Write [what you think] in square brackets, "
        "which nobody else perceives, (what you do) in round ones, and what you say without any. Never speak or act "
        "for others.",
    ]
    return "\n\n".join(lines)


def narrator_grounding(scene: Scene) -> str:
    """The system message of the narrator."""
    return (
        f"You describe the surroundings in a scene of {scene.book}: {scene.scenario}\n\nWhen it is your turn, tell "
        "in one to three sentences how the place and people other than the main characters react to what happened. "
        f"Never speak, think or decide for {', '.join(scene.major or scene.names)}."
    )


def director_grounding(scene: Scene) -> str:
    """The system message of the director, who names the next speaker."""
    return (
        f"You follow a scene: {scene.scenario}\n\nAfter each message you name who comes next, out of: "
        f"{', '.join((*scene.names, ENVIRONMENT))}. Reply with one of these names and nothing else; never the one "
        f"who just spoke. If the scene has come to its end, reply {END_CHAT}."
    )


def judged(scene: Scene, played: str) -> dict[str, str]:
    """Fields of the judges."""
    said = [(d.character, _public(d.character, d.message)) for d in scene.reference]
    note = f"The first {scene.given} messages were given to the cast: do not rate them.\n\n" if scene.given else ""
    return {
        "book": scene.book,
        "summary": scene.summary,
        "scenario": scene.scenario,
        "major": ", ".join(scene.major or scene.names),
        "profiles": "\n".join(f"{f.name}: {f.profile}" for f in scene.cast if f.profile),
        "reference": transcript(said) or "(not given)",
        "note": note,
        "transcript": played,
    }


def _public(name: str, message: str) -> str:
    return message if name == ENVIRONMENT else without_thoughts(message)
