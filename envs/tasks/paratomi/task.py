"""ParaToMi: paraphrased stories about who looks where for what; the answer is a place named in the story.

Without files the rows are generated (generator.py); a person's own copy of the benchmark replaces them as split
"test". Formats: the authors' `.txt` (numbered lines; question, tab, answer) with its `.trace` beside it (question
type), and OdysSim's records. Profiles: strict, exactly one answer block that is the place and nothing else; soul, the
place as a whole word and no other candidate; author, a bare substring test, which a list of all places passes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pydantic import model_validator

from common.errors import DataError
from envs.env import Feedback
from envs.registry import FeedbackPolicy, Metric, Profile, Source, TaskSpec
from envs.tasks.files import field, read_records, texts
from envs.tasks.paratomi.generator import QUESTIONS_PER_STORY, Part, generated_rows
from envs.tasks.schema import RowData, data_of, row_of
from envs.tasks.single import ONE_REPLY, SEAT, TAG, Asked, SingleTurn, chat
from envs.types import Episode, Message, Outcome, Row, Score, Seat

NAME = "paratomi"
FORM = "Think first if you like, then name the one place as <answer>place</answer>."
LINE = re.compile(r"\A(\d+) (.*)\Z")
ROWS_WITHOUT_LIMIT = 1200
_PARTS: Mapping[str, Part] = {"train": "train", "test": "heldout"}
WORD = re.compile(r"[\w']+")


class Whereabouts(RowData):
    """A story, and a question whose answer is a place."""

    story: str
    question: str
    answer: str
    choices: tuple[str, ...]
    """Places that the story names, the answer among them."""
    type: str

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Whereabouts:
        if self.answer not in self.choices:
            raise ValueError("the answer is none of the places")
        return self


def spec() -> TaskSpec:
    """The registry's entry."""
    return TaskSpec(
        name=NAME,
        axis="COG",
        version=1,
        metric=Metric("accuracy"),
        cluster="story",
        licence="generated rows: as osim; the authors' rows: MIT (paraphrases), ToMi CC BY-NC 4.0",
        env=ParatomiEnv,
        rows=rows,
        read=read_rows,
        seats=(SEAT,),
        profiles=("strict", "soul", "author"),
        feedback=FeedbackPolicy("rule", sees_gold=True),
        limits=ONE_REPLY,
        source=Source("https://github.com/skywalker023/thought-tracing", "966eb2712714aa29b4d5d2395e39af94a2be90d7"),
        aggregate=by_belief,
        part=lambda row: str(row.data["type"]),
        samples=_samples,
    )


def rows(split: str, limit: int | None, seed: int) -> list[Row]:
    """The first `limit` questions of generated stories; "train" and "test" share no story."""
    count = ROWS_WITHOUT_LIMIT if limit is None else limit
    made = generated_rows(NAME, _PARTS[split], -(-count // QUESTIONS_PER_STORY), seed)
    return list(made)[:count]


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a `.txt` of the authors, or of OdysSim's records."""
    if path.suffix == ".txt":
        yield from _authors(path)
        return
    for number, record in enumerate(read_records(path)):
        story = field(record, "story")
        lines = texts(story) if not isinstance(story, str) or story.lstrip().startswith("[") else [story]
        yield _row(
            number,
            "\n".join(lines),
            str(field(record, "question")),
            str(field(record, "correct_answer")),
            texts(record["cands"]) if record.get("cands") is not None else [],
            str(record.get("qType", "all")),
        )


def _authors(path: Path) -> Iterator[Row]:
    stories: list[tuple[str, str, str]] = []
    story: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        found = LINE.match(line)
        if found is None:
            raise DataError(f"not a numbered line: {line[:60]!r}", where=f"{path}, line {number}", fix="repair it")
        if "\t" in line:
            question, answer, *_ = found.group(2).split("\t")
            stories.append(("\n".join(story), question, answer))
            story = []
        else:
            story.append(found.group(2))
    trace = path.with_suffix(".trace")
    types = [line.split(",")[-2] for line in trace.read_text().splitlines()] if trace.is_file() else []
    places = {answer for _, _, answer in stories}
    for number, (text, question, answer) in enumerate(stories):
        candidates = sorted(places & set(WORD.findall(text)))
        yield _row(number, text, question, answer, candidates, types[number] if number < len(types) else "all")


def _row(number: int, story: str, question: str, answer: str, candidates: Sequence[str], kind: str) -> Row:
    places = tuple(sorted({*candidates, answer}))
    data = Whereabouts(story=story, question=question, answer=answer, choices=places, type=kind)
    return row_of(NAME, str(number), story, data)


def named(text: str, place: str) -> bool:
    """Whether `place` stands in `text` as a whole word, with "_" or a space."""
    return re.search(rf"(?<!\w){re.escape(plain(place))}(?!\w)", plain(text)) is not None


def plain(text: str) -> str:
    """A place or thing as it is compared: case, underscores, quotes and the full stop do not count."""
    return text.casefold().replace("_", " ").strip(" .'\"")


def right(reply: str, answer: str, choices: Sequence[str], profile: Profile) -> bool | None:
    """Whether a reply is right; None when it has no readable answer."""
    if profile == "author":
        return answer.lower() in reply.lower()
    answers = TAG.findall(reply.rpartition("</think>")[2])
    if not answers or (profile == "strict" and len(answers) > 1):
        return None
    given = answers[0]
    if profile == "soul":
        return named(given, answer) and not any(named(given, c) for c in choices if c != answer)
    mentioned = [choice for choice in choices if plain(given) in (plain(choice), f"the {plain(choice)}")]
    return mentioned[0] == answer if len(mentioned) == 1 else None


@dataclass(frozen=True)
class ParatomiEnv(SingleTurn[Whereabouts]):
    """One seat reads a story and names a place."""

    profile: Profile = "strict"

    def start(self, row: Row, rng: Random) -> Asked[Whereabouts]:
        return Asked(data_of(Whereabouts, row))

    def messages(self, question: Whereabouts) -> Sequence[Message]:
        return chat("", f"{question.story}\n\n{question.question}\n\n{FORM}")

    def score(self, state: Asked[Whereabouts]) -> Mapping[Seat, Outcome]:
        verdict = self._right(state)
        return {SEAT: Score(0.0, format_error=True) if verdict is None else Score(float(verdict))}

    def feedback(self, state: Asked[Whereabouts], seat: Seat) -> Feedback | None:
        verdict = self._right(state)
        if verdict is None:
            return Feedback(f"Your last reply did not name one place of the story. {FORM}", sees_gold=False)
        return None if verdict else Feedback("That place is not right. Follow who saw the last move.", sees_gold=True)

    def privileged(self, row: Row, seat: Seat) -> str | None:
        return None

    def _right(self, state: Asked[Whereabouts]) -> bool | None:
        return right(state.reply or "", state.question.answer, state.question.choices, self.profile)


def by_belief(episodes: Sequence[Episode]) -> dict[str, float]:
    """The authors' averages (test_tomi.py): an order is the mean of its two people, belief that of false and true."""
    types: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        outcome = episode.outcomes.get(SEAT)
        if isinstance(outcome, Score):
            types[str(episode.row.data["type"])].append(outcome.value)
    means = {kind: sum(values) / len(values) for kind, values in types.items()}
    found: dict[str, float] = {}
    for name, kind in (("false belief", "tom"), ("true belief", "no_tom")):
        orders = []
        for order in ("first", "second"):
            people = [means[k] for i in (0, 1) if (k := f"{order}_order_{i}_{kind}") in means]
            orders += [sum(people) / len(people)] if people else []
        if orders:
            found[name] = sum(orders) / len(orders)
    if len(found) == 2:
        found["belief"] = sum(found.values()) / 2
    return found


def _samples(row: Row, seat: Seat) -> Sequence[str]:
    d = row.data
    everything = ", ".join(d["choices"])
    return [
        f"<answer>{d['answer']}</answer>",
        f"<answer>{everything}</answer>",
        everything,
        "<answer>nowhere</answer>",
    ]
