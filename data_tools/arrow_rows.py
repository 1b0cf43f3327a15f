"""Columns of conversations out of Arrow arrays, as both readers have them: nothing is converted row by row.

A batch with anything unusual gives None, and its reader looks at it row by row.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.columns import Columns
from data_tools.conversation import ROLES
from data_tools.labels import Labels
from data_tools.texts import Texts

_ROLES = pa.array(ROLES)


def columns_of(messages: pa.Array, sources: pa.StringArray) -> Columns | None:
    """The rows when each has messages and all of these are usable; else None.

    messages: list<struct{role, content}>.
    """
    if messages.null_count or not {"role", "content"} <= struct_fields(messages.type):
        return None
    structs, counts = messages.flatten(), messages.value_lengths().to_numpy().astype(np.int64)
    roles, contents = structs.field("role"), structs.field("content")
    if not counts.all() or structs.null_count or roles.null_count or contents.null_count:
        return None
    codes = pc.index_in(roles.cast(pa.string()), value_set=_ROLES)
    if codes.null_count or not (pa.types.is_string(contents.type) or pa.types.is_large_string(contents.type)):
        return None
    try:
        contents.validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8
        return None
    return Columns(Texts(contents), codes.to_numpy().astype(np.uint8), counts, labels_of(sources))


def labels_of(strings: pa.StringArray) -> Labels:
    """The strings, nulls as empty ones. Raises UnicodeDecodeError for what is not UTF-8."""
    encoded = pc.fill_null(strings, "").dictionary_encode()
    return Labels(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())


def struct_fields(kind: pa.DataType) -> set[str]:
    """Fields of a list<struct> type; none for any other."""
    if hasattr(kind, "value_type") and pa.types.is_struct(kind.value_type):
        return {f.name for f in kind.value_type}
    return set()
