"""What the person, the assistant, the judges and the critic are told, in our own words."""

from __future__ import annotations

from collections.abc import Mapping

from envs.judges.spec import JudgeSpec
from envs.tasks.sim_arena.rows import Feature, Kind, Session
from envs.tasks.talk import transcript
from envs.tasks.verdicts import Advice, OneToFive, OneToTen, Reply

END = "terminate conversation"
START = "(Write your first message.)"
FINAL = "Give the whole final document now, and nothing else."
RATE = "(The conversation is over. Rate the assistant from 1, useless, to 10, perfect: reply with the number only.)"
ROLES: Mapping[Kind, tuple[str, str]] = {
    "math": ("a student who works on a mathematics problem with an AI tutor", "STUDENT"),
    "doc": ("a person who writes a document with the help of an AI assistant", "WRITER"),
}
WRITING = "grammar, spelling, punctuation, capitals, formality, fillers, fragments, slang, politeness"
INTERACTION = (
    "length and effort of messages, how much is told at once, how help is asked for, reactions to answers, "
    "corrections, feelings, when the talk is ended"
)


class Matched(Reply):
    """Whether one numbered trait fits."""

    number: int
    reasoning: str
    match: bool


class Traits(Reply):
    """One entry per numbered trait."""

    traits: list[Matched]


_COMPARE = (
    "REAL was written by a person in a talk with an AI assistant, SIMULATED by a program in the same situation. "
    "Judge only how the person's side is written, not what it is about, and not the assistant. Compare: {what}. "
    "Reason in two or three sentences that name differences, then rate the likeness: 1 clearly different people, 3 "
    "some likeness, 5 could be the same person. Empty, repeated or copied text is 1."
)
WRITING_JUDGE = JudgeSpec(
    id="sim_arena.writing",
    version=1,
    instructions=_COMPARE.format(what=WRITING),
    template="REAL:\n{real}\n\nSIMULATED:\n{transcript}",
    schema=OneToFive,
    untrusted=("real", "transcript"),
)
INTERACTION_JUDGE = JudgeSpec(
    id="sim_arena.interaction",
    version=1,
    instructions=_COMPARE.format(what=INTERACTION),
    template="REAL:\n{real}\n\nSIMULATED:\n{transcript}",
    schema=OneToFive,
    untrusted=("real", "transcript"),
)
TRAITS_JUDGE = JudgeSpec(
    id="sim_arena.traits",
    version=1,
    instructions=(
        "Decide for each numbered trait whether the person's side of the conversation as a whole shows it. match is "
        "true only if the pattern fits throughout, not for a single instance. Give one entry per number, with one "
        "sentence of reasoning."
    ),
    template="The traits:\n{traits}\n\nThe conversation:\n{transcript}",
    schema=Traits,
    max_tokens=4096,
)
DOCUMENT_JUDGE = JudgeSpec(
    id="sim_arena.document",
    version=1,
    instructions=(
        "Rate a document that a person made with an AI assistant, from 1 (unusable) over 5 (usable after much work) "
        "to 10 (complete, and just what this person wanted). It should have 100 to 500 words. Reason in two or three "
        "sentences first."
    ),
    template="What was wanted:\n{task}\n\nWhat this person values: {preferences}\n\nThe document:\n{document}",
    schema=OneToTen,
    untrusted=("document",),
)
CRITIC = JudgeSpec(
    id="sim_arena.critic",
    version=1,
    instructions=(
        "REAL was written by a person, SIMULATED by a program that plays this person. Tell the program in at most "
        "three sentences how to write and behave more like the person. Describe; never quote or paraphrase REAL."
    ),
    template="REAL:\n{real}\n\nSIMULATED:\n{transcript}",
    schema=Advice,
    untrusted=("real", "transcript"),
    role="critic",
)


def person_grounding(session: Session) -> str:
    """The system message of the person's seat: only it sees the profile."""
    role, _ = ROLES[session.kind]
    traits = "\n".join(f"- {f.name}: {f.description}" for f in session.features)
    lines = [
        f"You are {role}. You write this person's messages, one at a time.",
        f"What you work on:\n{session.task}",
        *([f"Who you are and how you behave:\n{session.profile}"] if session.profile else []),
        *([f"How you write and act:\n{traits}"] if traits and not session.profile else []),
        "If you like, think first; then write a line that begins with `Message:` and what you send. Write as this "
        f"person would, faults included. When you have what you want, write `{END}` instead of a message.",
    ]
    return "\n\n".join(lines)


def assistant_grounding(session: Session) -> str:
    """The system message of the assistant's seat."""
    if session.kind == "math":
        return f"You are a patient mathematics tutor: guide and explain, step by step.\n\nThe problem: {session.task}"
    return (
        "You are a writing assistant. You help a person to write a document: you ask when something is unclear, "
        f"draft, and revise as you are told.\n\n{session.task}"
    )


def numbered(features: tuple[Feature, ...]) -> str:
    """The traits as a numbered list."""
    return "\n".join(f"{i}. {f.name}: {f.description}" for i, f in enumerate(features, start=1))


def real_talk(session: Session) -> str:
    """The real conversation for a judge; only the person's side where nothing else is known."""
    person = ROLES[session.kind][1]
    if not session.conversation:
        return transcript((person, query) for query in session.queries)
    return transcript((person if m.role == "user" else "ASSISTANT", m.content) for m in session.conversation)
