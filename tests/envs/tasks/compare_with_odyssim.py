"""Our `soul` and `author` rules against the functions they restate, on made-up replies. No test: it needs source.

    python -m tests.envs.tasks.compare_with_odyssim --odyssim CHECKOUT --twinbench CHECKOUT [--replies 20000]

CHECKOUT is a git checkout of sunnweiwei/OdysSim and of TwinVoice/TwinBench. The parsing functions alone are taken out
of their files, so that nothing of theirs is imported or installed. Exit 1 with the first differences of each rule.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import subprocess
import sys
import typing
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from envs.tasks.alignx.task import soul_rule as alignx_rule
from envs.tasks.choice import LETTERS, Item, soul_choice
from envs.tasks.humanllm.task import Selection, read_ranking
from envs.tasks.humanual.scorers import length_factor, lexical_f1, read_reply
from envs.tasks.lifechoices.soul import permissive_choice
from envs.tasks.socsci210.rows import Response
from envs.tasks.socsci210.scorers import read_answer, worth
from envs.tasks.twinvoice.author import parse_choice

BITS = (
    "<answer>", "</answer>", "<ANSWER>", "</Answer>", "A", "b", "C", "d", "E", "T", " ", "\n", ".", ")", "(", ",",
    "answer: ", "Choice ", "choice: ", "<think>", "</think>", "<seed:think>", "</seed:think>", "because", "Dan left",
    "no", "yes", "Yes", "3", "-1", "7", "12", "4.0", "A,B,C,D,E", "g,A,B,C,D", "G,A,B,C,D", "S,T,A,B,C", "<response>",
    "</response>", '{"choice": "', '"}', '"choice": "B"', "{", "}", "\\boxed{A}", "choice = 'A'",
)  # fmt: skip
SHOWN = 3
FOUR, MANY, TWO = (Item("?", tuple(LETTERS[:n]), 0) for n in (4, 26, 2))
SELECTION = Selection(shopper="s", candidates=tuple(LETTERS[:20]), bought=3)
Pairs = Iterator[tuple[str, Any, Any]]


def lift(checkout: Path, path: str, *names: str) -> dict[str, Any]:
    """Functions and constants of a file by name, without running the rest of it."""
    shown = subprocess.run(["git", "-C", str(checkout), "show", f"HEAD:{path}"], capture_output=True, check=True)
    kept = [node for node in ast.parse(shown.stdout).body if _name(node) in names]
    found: dict[str, Any] = {"re": re, "json": json, "Optional": typing.Optional, "Any": Any}
    exec(compile(ast.Module(kept, []), path, "exec"), found)
    return found


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.FunctionDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    return target.id if isinstance(target, ast.Name) else ""


def rules(odyssim: Path, twinbench: Path) -> Callable[[str, str, random.Random], Pairs]:
    """A function that gives (rule, theirs, ours) for a reply and another text."""
    agent = "agents/{}/agent.py".format
    plain = lift(odyssim, "agents/utils.py", "remove_think")["remove_think"]

    def reader(task: str, name: str, *needs: str) -> Callable[[str], str | None]:
        found: Callable[[str], str | None] = lift(odyssim, agent(task), name, *needs)[name]
        return found

    letters = {
        "lifechoices": (reader("lifechoices", "extract_choice"), permissive_choice, FOUR),
        "mistakes": (reader("mistakes", "_extract_option_letter"), soul_choice, FOUR),
        "twinvoice": (reader("twinvoice", "extract_choice"), soul_choice, FOUR),
        "social_r1": (reader("social_r1", "_extract_option_letter", "ANSWER_TAG_RE"), soul_choice, MANY),
        "alignx": (reader("alignx", "_predict_choice", "ANSWER_PATTERN"), alignx_rule, TWO),
    }
    survey = lift(
        odyssim, agent("socsci210"), "_extract_prediction", "_compute_reward", "ANSWER_TAG_RE", "STRICT_INT_RE",
        "STRICT_YES_NO_RE", "_EXACT_MATCH_TYPES",
    )  # fmt: skip
    ranking = lift(odyssim, agent("humanllm"), "_predict_ranking", "ANSWER_PATTERN", "TOP_K", "LETTERS")
    humanual = lift(
        odyssim, agent("humanual"), "_extract_field", "_length_factor", "_lexical_f1", "_tokenize", "_TOKEN_RE"
    )
    twin = lift(twinbench, "twinvoice/discriminative/dimension_3/evaluate.py", "parse_choice")["parse_choice"]

    def pairs(reply: str, other: str, rng: random.Random) -> Pairs:
        content = plain(reply)
        for name, (theirs, ours, item) in letters.items():
            chosen = ours(item, reply)
            yield name, theirs(content), None if chosen is None else LETTERS[chosen]
        for kind in typing.get_args(Response.model_fields["kind"].annotation):
            high = 1 if kind == "binary" else 7
            question = Response(
                text="?", kind=kind, response=rng.randint(0, 1), low=0, high=high, study="s", group="g"
            )
            answer = survey["_extract_prediction"](content, kind)
            reward, _ = survey["_compute_reward"](answer, question.response, question.low, question.high, kind)
            own = read_answer(question, reply, "soul")
            yield f"socsci210 {kind}", (answer, reward), (own, 0.0 if own is None else worth(question, own, "soul"))
        candidates = list(SELECTION.candidates)
        yield "humanllm", ranking["_predict_ranking"](content, candidates), read_ranking(SELECTION, reply, "soul")
        yield "humanual reply", humanual["_extract_field"](content, "response"), read_reply(reply, "soul")
        yield "humanual length", humanual["_length_factor"](reply, other), length_factor(reply, other, "soul")
        f1 = humanual["_lexical_f1"](reply, other)
        yield "humanual F1", round(f1, 12), round(lexical_f1(reply, other), 12)
        yield "twinvoice author", twin(reply), parse_choice(reply)

    return pairs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--odyssim", type=Path, required=True)
    parser.add_argument("--twinbench", type=Path, required=True)
    parser.add_argument("--replies", type=int, default=20_000)
    asked = parser.parse_args()
    pairs, rng = rules(asked.odyssim, asked.twinbench), random.Random(0)
    compared: dict[str, int] = defaultdict(int)
    different: dict[str, list[str]] = defaultdict(list)
    for _ in range(asked.replies):
        reply, other = ("".join(rng.choices(BITS, k=rng.randrange(9))) for _ in range(2))
        for name, theirs, ours in pairs(reply, other * 5, rng):
            compared[name] += 1
            if theirs != ours:
                different[name].append(f"{reply!r}: theirs {theirs!r}, ours {ours!r}")
    for name, count in compared.items():
        print(f"{name}: {count - len(different[name])} of {count} equal")
        print("".join(f"    {line}\n" for line in different[name][:SHOWN]), end="")
    return int(any(different.values()))


if __name__ == "__main__":
    sys.exit(main())
