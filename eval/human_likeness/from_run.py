"""What a run's policy said, against what people said: everything that one run folder's episodes can tell.

Human turns come from the rows of tasks that hold them (TaskSpec.human), or from a person's own file. Runs in the
process of `osim eval likeness`; reads the ledger's episodes, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from common.config import Config
from common.errors import DataError, UsageError
from common.files import read_jsonl
from envs.players.engine import without_reasoning
from envs.registry import TaskSpec
from envs.types import Episode, Score
from eval.human_likeness.collapse import ModeCollapse, mode_collapse
from eval.human_likeness.report import HumanLikenessResult, human_likeness
from eval.human_likeness.text import Utterance
from eval.reactions import CustomerTurn, Reactions, customer_turns, reactions
from eval.survey import SurveyResult, survey

LIKENESS_FILE = "likeness.json"


class Likeness(Config):
    """Of one run; a part that the run has no data for is None, and `notes` say why."""

    name: str
    turns: HumanLikenessResult | None = None
    collapse: ModeCollapse | None = None
    surveys: dict[str, SurveyResult] = Field(default_factory=dict)
    """By task."""
    reactions: Reactions | None = None
    """Of tau_usi's customers, where an agent erred."""
    notes: tuple[str, ...] = ()


def likeness(
    episodes: Iterable[tuple[TaskSpec, Episode]],
    *,
    name: str,
    human: Sequence[Utterance] | None = None,
    customers: Sequence[CustomerTurn] = (),
    with_classifier: bool = True,
) -> Likeness:
    """customers: people's turns with agents that erred.

    human: instead of the rows' own human turns; without it only tasks whose rows hold some are compared.
    """
    played = list(episodes)
    compared = played if human is not None else [(spec, e) for spec, e in played if spec.human is not None]
    generated = [u for spec, e in compared for u in said(spec, e)]
    people = list(human) if human is not None else _people(compared)
    notes, turns = [], None
    if not people:
        notes.append("No human turns: the tasks' rows hold none, and no file was given.")
    else:
        try:
            turns = human_likeness(generated, people, name=name, with_classifier=with_classifier)
        except UsageError as e:
            notes.append(f"Human-likeness was not measured: {e.what}.")
    collapse = mode_collapse([u for spec, e in played for u in said(spec, e)], people)
    if collapse is None:
        notes.append("Mode collapse was not measured: it needs epochs > 1 and turns that open an episode.")
    spoken = [turn for _, episode in played for turn in customer_turns(episode)]
    return Likeness(
        name=name,
        turns=turns,
        collapse=collapse,
        surveys=_surveys(played),
        reactions=reactions(spoken, customers),
        notes=tuple(notes),
    )


def said(spec: TaskSpec, episode: Episode) -> list[Utterance]:
    """The policy's turns of an episode, without private thought.

    Only what opens an episode answers the same prompt in every epoch: later turns answer what was said before.
    """
    row, found = episode.row, []
    for place, say in enumerate(episode.says):
        text = without_reasoning(say.text).strip() if say.seat in spec.seats else ""
        if text:
            prompt = row.prompt_id if place == 0 else ""
            person = f"{row.task}/{row.cluster}/{say.seat}"
            found.append(Utterance(text, row.prompt_id, person=person, prompt=prompt, turn=place))
    return found


def _people(played: Sequence[tuple[TaskSpec, Episode]]) -> list[Utterance]:
    """The human turns of every row once."""
    rows = {episode.row.prompt_id: (spec, episode.row) for spec, episode in played}
    return [
        Utterance(text, ident, person=f"{row.task}/{row.cluster}", prompt=f"{ident}#{turn}", turn=turn)
        for ident, (spec, row) in rows.items()
        if spec.human is not None
        for turn, text in enumerate(spec.human(row))
        if text.strip()
    ]


def _surveys(played: Sequence[tuple[TaskSpec, Episode]]) -> dict[str, SurveyResult]:
    found: dict[str, SurveyResult] = {}
    for name in sorted({spec.name for spec, _ in played if spec.survey is not None}):
        answers = [
            (episode.row.id, answer)
            for spec, episode in played
            if spec.name == name and spec.survey is not None and _scored(spec, episode)
            if (answer := spec.survey(episode)) is not None
        ]
        found[name] = survey(answers)
    return found


def _scored(spec: TaskSpec, episode: Episode) -> bool:
    return all(isinstance(episode.outcomes.get(seat), Score) for seat in spec.seats)


def read_human(path: Path) -> list[Utterance]:
    """Human turns of a JSON-lines file: text, conversation, and optionally person, prompt, turn. Raises DataError."""
    if not path.is_file():
        raise UsageError("no such file", where=str(path), fix="give JSON lines with text and conversation")
    out = []
    for number, line in enumerate(read_jsonl(path), start=1):
        try:
            extra = {name: str(line[name]) for name in ("person", "prompt") if line.get(name) is not None}
            text, conversation, turn = str(line["text"]), str(line["conversation"]), int(line.get("turn", 0))
            out.append(Utterance(text, conversation, turn=turn, **extra))
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(
                f"not a human turn: {e!r}", where=f"{path}, line {number}", fix="give at least text and conversation"
            ) from e
    return out
