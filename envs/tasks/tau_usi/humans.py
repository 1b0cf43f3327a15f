"""What real customers did with tau-bench's requests: tau-USI's annotations (a person's own copy), read as they are.

One JSON object: instance id → conversation, survey, reward, keep; ids of the second and third annotator end in
`_ann2` and `_ann3`. Beside it there may be `tau_usi_difficulty.json`: how often others settle each request. Pure but
for `read`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import DataError
from envs.tasks.files import loads
from envs.tasks.tau_usi.features import measure

ANNOTATIONS, DIFFICULTY = "tau_bench_tasks_unified.json", "tau_usi_difficulty.json"
INSTANCE = re.compile(r"\A(retail|airline)_(\d+)")
NO_TURN = re.compile(r"\A(?:\\tau |\\reward|/stop\s*\Z|###STOP###\s*\Z)|<\|(?:canvas|highlight|survey)\|>")
LABELS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "task_success": (("no - task", 1), ("no - due", 2), ("partially", 3), ("yes", 4), ("fully", 5)),
    "efficiency": (("very inefficient", 1), ("somewhat", 2), ("about right", 3), ("very efficient", 4)),
    "question_amount_preference": (("too", 1), ("about right", 2)),
    "answer_effort_time": (("high", 1), ("medium", 2), ("low", 3)),
    "human_like": (("no", 1), ("partially", 2), ("yes", 3)),
    "interaction_flow": (("not smooth", 1), ("ok", 2), ("smooth", 3), ("excellent", 4)),
    "overall_score": (("1", 1), ("2", 2), ("3", 3), ("4", 4), ("5", 5)),
    "reuse": (("absolutely no", 1), ("no", 2), ("maybe", 3), ("yes", 4), ("absolutely yes", 5)),
}
"""How the answers of each question begin, and their place."""


def read(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Humans by request (`retail_0`), in order of annotator; empty without the file. Raises DataError."""
    path = folder / ANNOTATIONS
    if not path.is_file():
        return {}
    found = loads(path.read_bytes())
    hard = loads((folder / DIFFICULTY).read_bytes()) if (folder / DIFFICULTY).is_file() else {}
    difficulty = hard.get("difficulty", hard)
    if not isinstance(found, dict):
        raise DataError("no object of annotations", where=str(path), fix="give the published file")
    humans: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for ident, entry in sorted(found.items()):
        key = INSTANCE.match(ident)
        if key is None or not isinstance(entry, dict):
            raise DataError("not an annotation of a request", where=f"{path}, {ident}", fix="give the published file")
        if entry.get("keep", True):
            humans[key.group(0)].append(human(entry, float(difficulty.get(key.group(0), 0.5))))
    return dict(humans)


def human(entry: Mapping[str, Any], difficulty: float = 0.5) -> dict[str, Any]:
    """One annotation as a row holds it."""
    turns = [str(m.get("content", "")) for m in entry.get("conversation") or () if m.get("role") == "user"]
    answers = {name: answer(name, (entry.get("survey") or {}).get(name)) for name in LABELS}
    return {
        "features": measure([turn for turn in turns if not NO_TURN.search(turn)]),
        "success": float(entry.get("reward") or 0) > 0,
        "survey": {name: place for name, place in answers.items() if place is not None},
        "difficulty": difficulty,
    }


def answer(name: str, given: Any) -> int | None:
    """The place of an answer, by the longest beginning that fits."""
    text = str(given.get("answer", "") if isinstance(given, Mapping) else given or "").strip().lower()
    fitting = [(len(start), place) for start, place in LABELS[name] if text.startswith(start)]
    return max(fitting)[1] if fitting else None
