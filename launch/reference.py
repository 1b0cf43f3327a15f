"""Every key of every kind of recipe, as one page, from the models themselves. Pure.

docs/reference.md is this text; a test compares them.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from launch.kinds import KINDS, model_of
from launch.plan.cluster import ClusterConfig

HEAD = """# Every key of every recipe

Written by `osim config reference` from the program's own models; do not edit. A section with keys of its own has a
heading of its own. Unknown keys are refused, and the nearest known one is named. `required`: there is no default.
"""


def reference() -> str:
    """Markdown: one part a kind, one table a section, each model once."""
    parts = [HEAD]
    shown: dict[type[BaseModel], str] = {}
    models = {kind: model_of(kind) for kind in KINDS} | {"cluster": ClusterConfig}
    for kind, model in models.items():
        parts.append(f"## {kind}\n\n{_text(model.__doc__)}\n")
        parts += _sections(model, shown)
    return "\n".join(parts)


def _sections(root: type[BaseModel], shown: dict[type[BaseModel], str]) -> Iterator[str]:
    waiting = [root]
    while waiting:
        model = waiting.pop(0)
        if model in shown:
            continue
        shown[model] = model.__name__
        if model is not root:
            yield f"### {model.__name__}\n\n{_text(model.__doc__)}\n"
        yield "| key | values | default | meaning |\n| --- | --- | --- | --- |"
        for name, field in model.model_fields.items():
            waiting += _models(field.annotation)
            yield f"| `{name}` | {_values(field.annotation)} | {_default(field)} | {_text(field.description)} |"
        yield ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _values(annotation: Any) -> str:
    """A type in words; a section links to its table."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        named = [_values(part) for part in parts if part is not type(None)]
        return " or ".join(dict.fromkeys(named)) + (" or null" if type(None) in parts else "")
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"list of {_values(parts[0])}"
    if origin is tuple:
        return f"list: {', '.join(_values(part) for part in parts)}"
    if origin is dict:
        return f"mapping of {_values(parts[0])} to {_values(parts[1])}"
    if origin is not None and parts:
        return _values(parts[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return "path"
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "true, false", "NoneType": "null"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "its own"
    if value is None:
        return "null"
    if isinstance(value, PurePath) and value.is_absolute():
        return "where osim lies"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(str(v) for v in value) + "]"
    return f"`{value}`" if str(value) else '""'


def _text(doc: str | None) -> str:
    return re.sub(r"\s+", " ", (doc or "").strip()).replace("|", "\\|")
