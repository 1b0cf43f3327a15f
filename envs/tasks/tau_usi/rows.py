"""Requests to a shop or an airline: generated ones, and tau-bench's own files. Pure but for `read_*`.

tau-bench keeps its tasks as Python files; they are parsed, never run. Their databases are large and shared: rows of
published tasks do not hold them (`tables` is null), and the environment is bound to the files (`read_worlds`).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from common.errors import DataError, UsageError
from common.files import hash_json
from envs.tasks.files import loads, read_records
from envs.tasks.schema import RowData, checked, row_of, text_of
from envs.tasks.tau_usi import humans
from envs.tasks.tau_usi.survey import valid
from envs.types import Row

NAME = "tau_usi"
Domain = Literal["retail", "airline"]
FILES: Mapping[Domain, tuple[str, ...]] = {
    "retail": ("users", "orders", "products"),
    "airline": ("users", "reservations", "flights"),
}
Text = Annotated[str, Field(min_length=1)]


class Call(RowData):
    """One tool call."""

    name: Text
    arguments: dict[str, Any]


class Human(RowData):
    """What a real customer did with the same request."""

    features: dict[str, float]
    success: bool
    survey: dict[str, int]
    difficulty: Annotated[float, Field(ge=0, le=1)] = 0.5

    @field_validator("survey")
    @classmethod
    def _answers(cls, survey: dict[str, int]) -> dict[str, int]:
        if wrong := [name for name, answer in survey.items() if not valid(name, answer)]:
            raise ValueError(f"not an answer: {', '.join(wrong)}")
        return survey


class Case(RowData):
    """The validated data of one row."""

    domain: Domain
    instruction: Text
    """Who the customer is and wants: for the customer's seat only."""
    user_id: str
    actions: tuple[Call, ...]
    """What a right agent does."""
    outputs: tuple[str, ...]
    """What a right agent tells."""
    tables: dict[str, dict[str, Any]] | None = None
    humans: tuple[Human, ...] = ()
    """Real customers with the same request, in order of annotator."""


def case_row(record: Mapping[str, Any], ident: str, where: str) -> Row:
    """A row of a request; actions may have `kwargs` or `arguments`. Raises DataError."""
    actions = [
        {"name": text_of(a, "name"), "arguments": a.get("arguments", a.get("kwargs")) or {}}
        for a in record.get("actions") or ()
        if text_of(a, "name") != "respond"
    ]
    values = {
        "domain": text_of(record, "domain", "env_name"),
        "instruction": text_of(record, "instruction"),
        "user_id": text_of(record, "user_id"),
        "actions": actions,
        "outputs": [str(o) for o in record.get("outputs") or ()],
        "tables": record.get("tables"),
        "humans": record.get("humans") or (),
    }
    data = checked(Case, values, where)
    return row_of(NAME, ident, f"{data.domain}/{data.user_id or hash_json(data.instruction)[:12]}", data)


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of tau-bench's folder (`retail/`, `airline/`), or of a file of records. Raises UsageError, DataError."""
    if path.is_file():
        for number, record in enumerate(read_records(path)):
            where = f"{path}, record {number + 1}"
            ident = text_of(record, "instance_id", "id", default=f"{text_of(record, 'env_name')}_{number}")
            yield case_row(record, ident, where)
        return
    people = humans.read(path)
    for domain in _domains(path):
        source = next((p for n in ("tasks_test.py", "tasks.py") if (p := path / domain / n).is_file()), None)
        if source is None:
            raise UsageError("no tasks here", where=str(path / domain), fix="tasks_test.py of tau-bench belongs here")
        for number, record in enumerate(tasks_in(source.read_text(), str(source))):
            ident = f"{domain}_{number}"
            told = {**record, "domain": domain, "humans": people.get(ident)}
            yield case_row(told, ident, f"{source}, task {number}")


def read_worlds(path: Path) -> dict[str, dict[str, Any]]:
    """The databases of a folder of tau-bench by domain; none for a file, whose rows hold their own."""
    if path.is_file():
        return {}
    return {
        domain: {table: loads((path / domain / "data" / f"{table}.json").read_bytes()) for table in FILES[domain]}
        for domain in _domains(path)
    }


def tasks_in(source: str, where: str) -> list[dict[str, Any]]:
    """The `Task(…)` values of a Python file, from its syntax tree. Raises DataError."""
    try:
        calls = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call) and _called(n) == "Task"]
        return [_literal(c) for c in sorted(calls, key=lambda c: (c.lineno, c.col_offset))]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise DataError(f"not a file of tasks: {e}", where=where, fix="give tau-bench's own file") from e


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and _called(node) in ("Task", "Action"):
        return {k.arg: _literal(k.value) for k in node.keywords if k.arg}
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    return ast.literal_eval(node)


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _domains(path: Path) -> list[Domain]:
    found: list[Domain] = [domain for domain in FILES if (path / domain).is_dir()]
    if not found:
        raise UsageError("no tau-bench here", where=str(path), fix="give its folder tau_bench/envs")
    return found


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
