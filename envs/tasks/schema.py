"""Row schemas: closed models of what a row's data must hold, and how a violation is named. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import DataError, data_errors
from common.files import hash_json
from envs.tasks.files import RECORD_FIX, read_records, unfold
from envs.types import Row


class RowData(BaseModel):
    """Base of a task's row schema: an unknown or missing field is an error; instances are values (frozen, equal)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


D = TypeVar("D", bound=RowData)


class FromRecord(Protocol):
    """Makes a row of one published record. `number` counts from 0; raises DataError."""

    def __call__(self, record: Mapping[str, Any], number: int, *, where: str) -> Row: ...


def checked(schema: type[D], values: Mapping[str, Any], where: str) -> D:
    """`values` as an instance of `schema`. Raises DataError naming every field that is wrong."""
    try:
        return schema.model_validate(values)
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'row'}: {p['msg']}" for p in e.errors())
        raise DataError(problems, where=where, fix=f"see {schema.__module__}.{schema.__name__}") from None


def data_of(schema: type[D], row: Row) -> D:
    """The validated data of a row. Raises DataError."""
    return checked(schema, row.data, row.prompt_id)


def row_of(task: str, ident: str, cluster: str, data: RowData) -> Row:
    """A row that holds `data` as JSON values."""
    return Row(task, ident, cluster, data.model_dump(mode="json"))


def distinct(ident: str, data: RowData) -> str:
    """`ident` with a hash of the row's content: published indices repeat, e.g. once per side of a scenario."""
    return f"{ident}-{hash_json(data.model_dump(mode='json'))[:8]}"


def rows_of_file(path: Path, from_record: FromRecord) -> Iterator[Row]:
    """One row per record of a file or folder."""
    for number, record in enumerate(read_records(path)):
        where = f"{path}, record {number + 1}"
        with data_errors(where, fix=RECORD_FIX, what="a malformed record"):
            row = from_record(record, number, where=where)
        yield row


def rows_of_records(records: Iterable[Mapping[str, Any]], from_record: FromRecord) -> list[Row]:
    """Rows of records in the published form (with `extra_info`), e.g. a task's own examples."""
    return [from_record(unfold(r), n, where=f"example {n + 1}") for n, r in enumerate(records)]


def text_of(record: Mapping[str, Any], *names: str, default: str = "") -> str:
    """The first of `names` that is there and not null, as text."""
    return next((str(record[n]) for n in names if record.get(n) is not None), default)
