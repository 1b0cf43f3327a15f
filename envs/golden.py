"""Golden vectors: rows {"kind", inputs…, "author"} against our `author` rules (`osim task golden FILE.jsonl`).

A row's kind names the rule; its author value is what the benchmark's own code gave for the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from common.errors import DataError, UsageError, data_errors
from envs.tasks.behaviorchain import author as behaviorchain
from envs.tasks.coser.author import dimension_score
from envs.tasks.fantom import author as fantom
from envs.tasks.mirrorbench import lexical
from envs.tasks.sotopia import dimensions as sotopia
from envs.tasks.tau_usi.reliability import pass_hat_k
from envs.tasks.tombench import author as tombench
from envs.tasks.twinvoice import author as twinvoice

RELATIVE, ABSOLUTE = 1e-9, 1e-12
Row = Mapping[str, Any]

RULES: Mapping[str, Callable[[Row], Any]] = {
    "mc": lambda r: fantom.choice_is_right(r["response"], r["correct_answer"]),
    "list": lambda r: fantom.list_verdict(r["response"], r["correct_answer"], r["wrong_answer"]),
    "binary": lambda r: fantom.yes_or_no(r["response"]),
    "fact_f1": lambda r: fantom.token_f1(r["response"], r["correct_answer"]),
    "extract": lambda r: tombench.extract_letter(r["response"]),
    "majority5": lambda r: tombench.majority(r["votes"]),
    "parse_choice_d2": lambda r: twinvoice.parse_choice(r["response"]),
    "parse_choice_d3": lambda r: twinvoice.parse_choice(r["response"]),
    "chain": lambda r: {
        "cam_normalized": behaviorchain.cumulative_accuracy(r["results"]),
        "max_chain": behaviorchain.longest_chain(r["results"]),
    },
    "letter_rule_restated": lambda r: behaviorchain.read_letter(r["response"]),
    "lexical": lambda r: {
        "mattr_w50": lexical.mattr(r["tokens"]),
        "hdd_42": lexical.hdd(r["tokens"]),
        "yules_k": lexical.yules_k(r["tokens"]),
    },
    "calibration": lambda r: [lexical.calibrate(s, r["hh"], r["pp"]) for s in r["scores"]],
    "mean_sd_ci": lambda r: lexical.mean_sd_half_width(r["scores"]),
    "overall": lambda r: sotopia.author_overall(r["scores"]),
    "coser_dimension": lambda r: dimension_score(r["severities"], r["messages"]),
    "pass_hat_k": lambda r: pass_hat_k(r["n"], r["c"], r["k"]),
}


@dataclass(frozen=True)
class Difference:
    """A row whose author value is not ours."""

    line: int
    kind: str
    author: Any
    ours: Any


def compare(rows: Iterable[Row]) -> list[Difference]:
    """Rows that differ, numbered from 1. Raises UsageError (unknown kind) or DataError (missing fields)."""
    differences = []
    for line, row in enumerate(rows, start=1):
        rule = RULES.get(str(row.get("kind")))
        if rule is None:
            raise UsageError(
                f"unknown kind {row.get('kind')!r}", where=f"line {line}", fix=f"one of {', '.join(sorted(RULES))}"
            )
        what = f"row of kind {row['kind']!r} cannot be read"
        with data_errors(f"line {line}", fix="give the inputs of its rule and `author`", what=what):
            ours = rule(row)
            author = row["author"]
        if not same(ours, author):
            differences.append(Difference(line, row["kind"], author, ours))
    return differences


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a golden file. Raises UsageError or DataError."""
    if not path.is_file():
        raise UsageError("no such file", where=str(path), fix="give a JSON-lines file of golden rows")
    with data_errors(str(path), fix="one JSON object per line", what="not JSON lines"):
        rows = [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError("not a JSON object", where=f"{path}, row {number}", fix="one JSON object per line")
    return rows


def same(a: Any, b: Any) -> bool:
    """Equality with a tolerance for the order of floating-point operations."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return bool(a == b)
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
