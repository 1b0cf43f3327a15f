"""FANToM's numbers over sets of questions, as its authors report them (skywalker023/fantom, `eval_fantom.py`). Pure.

A set is what is asked about one piece of information. Per scenario (inaccessible: somebody missed the information,
the benchmark's headline; accessible: nobody did, its control):
* ALL: share of sets with every theory-of-mind question right, and the same over the answerability and over the
  information-access questions alone;
* list: share of the who-knows lists that are right;
* binary F1: F1 of yes and of no, weighted by how often each is the right answer; an unreadable reply is neither.

Facts are left out. So are the binary questions whose right answer is "no:long": only the whole conversation tells it,
and rows hold the part that is asked about. ALL* of the paper also counts a free answer to the belief question, which
an embedding model compares with two references: no published row that is read here holds one, so it is not computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from envs.tasks.epochs import by_epoch
from envs.tasks.fantom.author import UNKNOWN, yes_or_no
from envs.tasks.fantom.scorers import polarity
from envs.tasks.single import SEAT
from envs.types import Episode, Outcome, Score

FAMILIES: Mapping[str, str] = {"answerability": "answerability", "info": "information access"}
"""What a question type's name holds, and what its numbers are called here."""
NEEDS_WHOLE_CONVERSATION = "no:long"


def set_numbers(episodes: Sequence[Episode]) -> dict[str, float]:
    """Each number that the questions asked can give, by name: "ALL", or "inaccessible ALL" where rows say which.

    Each epoch counts by itself. A set with an unscored question counts neither as right nor as wrong.
    """
    found: dict[str, float] = {}
    asked = [(k, e) for k, plays in enumerate(by_epoch(episodes)) for e in plays if _counts(e)]
    for scenario in sorted({str(e.row.data["accessibility"]) for _, e in asked}):
        here = [(k, e) for k, e in asked if e.row.data["accessibility"] == scenario]
        numbers = {"ALL": all_right(here)}
        for mark, family in FAMILIES.items():
            own = [(k, e) for k, e in here if mark in str(e.row.data["part"])]
            said = [_said(e) for _, e in own if e.row.data["kind"] == "binary"]
            numbers |= {
                f"{family} ALL": all_right(own),
                f"{family} list": _mean(e for _, e in own if e.row.data["kind"] == "list"),
                f"{family} binary F1": weighted_f1([pair for pair in said if pair is not None]),
            }
        found |= {f"{scenario} {name}".strip(): value for name, value in numbers.items() if value is not None}
    return found


def all_right(asked: Iterable[tuple[int, Episode]]) -> float | None:
    """Share of (set, epoch) pairs in which every question is right; None without a scored one."""
    sets: dict[tuple[str, int], list[Outcome | None]] = defaultdict(list)
    for epoch, episode in asked:
        sets[str(episode.row.data["set_id"]), epoch].append(episode.outcomes.get(SEAT))
    scored = []
    for outcomes in sets.values():
        scores = [o.value for o in outcomes if isinstance(o, Score)]
        if len(scores) == len(outcomes):
            scored.append(all(value == 1.0 for value in scores))
    return sum(scored) / len(scored) if scored else None


def weighted_f1(pairs: Sequence[tuple[int, int]]) -> float | None:
    """F1 of each right answer, weighted by its share, of (right, said) pairs; None for none."""
    total = 0.0
    for label in {right for right, _ in pairs}:
        support, claimed = (sum(pair[i] == label for pair in pairs) for i in (0, 1))
        hits = sum(right == said == label for right, said in pairs)
        total += support * 2 * hits / (support + claimed)
    return total / len(pairs) if pairs else None


def _counts(episode: Episode) -> bool:
    kind, right = episode.row.data["kind"], episode.row.data["correct"][0]
    return kind != "fact" and (kind, right) != ("binary", NEEDS_WHOLE_CONVERSATION)


def _mean(episodes: Iterable[Episode]) -> float | None:
    values = [o.value for e in episodes if isinstance(o := e.outcomes.get(SEAT), Score)]
    return sum(values) / len(values) if values else None


def _said(episode: Episode) -> tuple[int, int] | None:
    """(right, said) of a scored yes/no question."""
    outcome, right = episode.outcomes.get(SEAT), polarity(episode.row.data["correct"][0])
    if not isinstance(outcome, Score) or right is None:
        return None
    if episode.scorer == "author":
        return right, yes_or_no(episode.says[-1].text)
    return right, UNKNOWN if outcome.format_error else right if outcome.value == 1.0 else 1 - right
