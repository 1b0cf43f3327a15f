"""Sections about a run folder that are no results: where it comes from, what it cost, how far it is, human-likeness.

Reads only. Files of another version or half-written ones are left out, never an error: a run may be under way. A
damaged manifest is said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.config import read_yaml, validate
from common.errors import DataError, OsimError, data_errors
from common.files import RESTORE, read_json_object
from common.run_folder import RunFolder
from data_tools.tokenizer import open_tokenizer
from envs.ledger import LEDGER_FILE, LedgerReader
from eval.human_likeness.from_run import LIKENESS_FILE, Likeness
from eval.progress import cells, read_progress
from eval.report.sections import Facts, HumanLikeness, Prose, Section, Table
from eval.report.transcripts import TokenPieces, token_pieces
from eval.results import Results

ABSOLUTE_PATH = re.compile(r"(?<![\w:/.~-])/(?:[^/\s,;'\"]+/)*(?=[^/\s,;'\"])")
"""The folders of an absolute path: a report that is passed on says nothing about the machine it was made on."""


def provenance(folders: Sequence[Path], results: Sequence[Results] = ()) -> Facts | Table:
    """Where numbers come from: facts of one run, or a table of several."""
    found = {f.name: _manifest_facts(f) for f in folders}
    if len(folders) == 1 and results:
        r = results[0]
        facts = {"plan": r.plan, "seed": str(r.seed), "epochs": str(r.epochs), "profile": r.profile}
        found[folders[0].name] |= {**{k: _short(v) for k, v in r.provenance.items()}, **facts}
    if len(folders) == 1:
        return Facts("Provenance", next(iter(found.values())))
    columns = ["commit", "started", "command"]
    inputs = dict.fromkeys(k for facts in found.values() for k in facts if k.startswith("input "))
    columns += [name for name in inputs if name != "input model"]
    rows = [(name, *(facts.get(column, "") for column in columns)) for name, facts in found.items()]
    return Table("Provenance", ("run", *columns), rows, note=_common_packages(list(found.values())))


def _common_packages(facts: Sequence[dict[str, str]]) -> str:
    return "; ".join(dict.fromkeys(f["packages"] for f in facts if f.get("packages")))


def _manifest_facts(folder: Path) -> dict[str, str]:
    facts = {"folder": folder.name}
    manifest = RunFolder(folder).manifest
    if manifest.is_file():
        try:
            with data_errors(str(manifest), fix=RESTORE):
                facts |= _facts_of(read_json_object(manifest))
        except DataError as e:
            facts["manifest"] = _short(e.what)  # replaced by a rename: a broken one is not half-written
    return facts


def _facts_of(found: Mapping[str, Any]) -> dict[str, str]:
    """What a manifest says, for people."""
    git = found.get("git") or {}
    commit = str(git.get("commit", "unknown"))[:12]
    return {
        "command": " ".join(_short(str(word)) for word in found.get("command", [])),
        "commit": f"{commit}{' with local changes' if git.get('dirty') else ''}",
        "started": str(found.get("started", "")),
        "packages": ", ".join(f"{k} {v}" for k, v in dict(found.get("packages", {})).items()),
        **{f"input {k}": _short(str(v)) for k, v in dict(found.get("inputs", {})).items()},
    }


def _short(text: str) -> str:
    """Absolute paths by their last names, also inside KEY=PATH; addresses and everything else as they are."""
    return ABSOLUTE_PATH.sub("", text)


def under_way(folder: Path) -> list[Section]:
    """How far a running evaluation is, or was when it was killed; nothing where neither is."""
    last = read_progress(folder)
    if last is None or not last.tasks:
        return []
    columns = ("task", "scored", "of", "running mean", "coverage", "unscored", "cost")
    rows = [(p.task, p.done, p.planned, *cells(p)) for p in last.tasks]
    if not last.running:
        note = f"No process holds this folder now: this was said {last.age_s:.0f} s ago. The same command goes on."
        return [Table("Stopped before the end", columns, rows, note=note)]
    left = [p.eta_s for p in last.tasks if p.eta_s is not None]
    note = f"About {left[-1]:.0f} s left. Means are of what has been scored so far." if left else "It has just begun."
    return [Table("Under way", columns, rows, note=note)]


def costs(folders: Sequence[Path]) -> list[Section]:
    """API calls by role and model, where a ledger has some."""
    rows = []
    for folder in folders:
        ledger = RunFolder(folder).ledger
        if not (ledger / LEDGER_FILE).is_file():
            continue
        try:
            with LedgerReader(ledger) as reader:
                found = reader.costs()
        except OsimError:
            continue  # The ledger has not begun yet.
        label = (folder.name,) if len(folders) > 1 else ()
        rows += [
            (*label, c.role, c.model, c.calls, c.failed, c.cached, c.prompt_tokens, c.completion_tokens, c.cost_usd)
            for c in found
        ]
    head = ("run",) if len(folders) > 1 else ()
    columns = (*head, "role", "model", "calls", "failed", "from record", "prompt tokens", "completion tokens", "US $")
    return [Table("API calls", columns, rows)] if rows else []


def likeness_sections(folder: Path, name: str) -> list[Section]:
    """What `osim eval likeness` has measured."""
    path = folder / LIKENESS_FILE
    if not path.is_file():
        return []
    try:
        found = validate(Likeness, read_json_object(path), where=str(path))
    except OsimError:
        return []
    tab = "Human-likeness"
    sections: list[Section] = [HumanLikeness(f"{name}: turns against people's", found.turns)] if found.turns else []
    if (c := found.collapse) is not None:
        columns = (
            "prompts",
            "samples",
            "similarity within a prompt",
            "between prompts",
            "distinct texts",
            "people within",
        )
        row = (c.prompts, c.samples, c.within, c.between, f"{c.distinct:.1%}", c.human_within)
        note = "Word-bigram Jaccard similarity of samples of one prompt, and of answers to different prompts."
        sections.append(Table(f"{name}: mode collapse", columns, [row], note=note, tab=tab))
    for task, survey in found.surveys.items():
        measured = (
            "question",
            "answers",
            "unreadable",
            "W1 / range",
            "people",
            "JS, bits",
            "people",
            "variance ratio",
        )
        rows = [
            (q.question, q.n, q.unreadable, q.w1, q.w1_floor, q.js, q.js_floor, q.variance_ratio)
            for q in survey.questions
        ]
        note = "Distances to people's answers, beside two halves of the people; variance is model over people."
        note += f" {survey.left_out} questions have too few answers." if survey.left_out else ""
        sections.append(Table(f"{name}: answers to {task}", measured, rows, note=note, tab=tab))
    if found.reactions is not None:
        sections.append(Prose(f"{name}: reactions to errors", found.reactions.line(), tab=tab))
    if found.notes:
        sections.append(Prose(f"{name}: not measured", "\n\n".join(found.notes), tab=tab))
    return sections


def run_pieces(folder: Path) -> TokenPieces | None:
    """Token texts of a run by the tokenizer of its model; None where there is none (API models)."""
    try:
        model = read_yaml(RunFolder(folder).config).get("model")
    except OsimError:
        return None
    named = model.get("path") if isinstance(model, dict) else model
    for candidate in (folder / "hf", folder / "model", *([Path(named)] if isinstance(named, str) else [])):
        if (pieces := pieces_of(candidate)) is not None:
            return pieces
    return None


def pieces_of(tokenizer_folder: Path) -> TokenPieces | None:
    """Token texts by a Hugging Face tokenizer folder; None when it has no tokenizer.json."""
    if not (tokenizer_folder / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = open_tokenizer(tokenizer_folder)
    except DataError:
        return None
    return token_pieces(partial(tokenizer.decode, skip_special_tokens=False))
