"""Every key of every kind of recipe, as one page, from the models themselves. Pure.

docs/reference.md is this text; a test compares them.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from data_tools.ground import GroundConfig
from launch.kinds import KINDS, model_of
from launch.plan.cluster import ClusterConfig
from launch.submit.config import ChainConfig

HEAD = """# Every key of every recipe

Written by `osim config reference` from the program's own models; do not edit. A section with keys of its own has a
heading of its own. Unknown keys are refused, and the nearest known one is named. `required`: there is no default.
"""


def reference() -> str:
    """Markdown: one part a kind, one table a section, each model once."""
    roots = {kind: model_of(kind) for kind in KINDS}
    roots |= {"ground": GroundConfig, "cluster": ClusterConfig, "chain": ChainConfig}
    anchors: dict[type[BaseModel], str] = {model: kind for kind, model in roots.items()}
    parts = {kind: _sections(model, anchors) for kind, model in roots.items()}
    text = [HEAD]
    for kind, models in parts.items():
        for model in models:
            heading = f"## {kind}" if model is roots[kind] else f"### {model.__name__}"
            text.append(f"{heading}\n\n{_text(model.__doc__)}\n\n{_table(model, anchors)}\n")
    return "\n".join(text)


def _sections(root: type[BaseModel], anchors: dict[type[BaseModel], str]) -> list[type[BaseModel]]:
    """The root and every model below it that has no anchor yet; gives each its anchor.

    Equal headings get `-1`, `-2` … as in every renderer of Markdown.
    """
    waiting, found = [root], []
    while waiting:
        model = waiting.pop(0)
        if model in found or (model in anchors and model is not root):
            continue
        if model is not root:
            name = model.__name__.lower()
            same = sum(anchor.rpartition("-")[0] == name or anchor == name for anchor in anchors.values())
            anchors[model] = f"{name}-{same}" if same else name
        found.append(model)
        waiting += [part for field in model.model_fields.values() for part in _models(field.annotation)]
    return found


def _table(model: type[BaseModel], anchors: Mapping[type[BaseModel], str]) -> str:
    rows = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        rows.append(f"| `{name}` | {_values(field.annotation, anchors)} | {_default(field)} | {_meaning(field)} |")
    return "\n".join(rows)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _values(annotation: Any, anchors: Mapping[type[BaseModel], str]) -> str:
    """A type in words; a section links to its table."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        named = [_values(part, anchors) for part in parts if part is not type(None)]
        return " or ".join(dict.fromkeys(named)) + (" or null" if type(None) in parts else "")
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"list of {_values(parts[0], anchors)}"
    if origin is tuple:
        return f"list: {', '.join(_values(part, anchors) for part in parts)}"
    if origin is dict:
        return f"mapping of {_values(parts[0], anchors)} to {_values(parts[1], anchors)}"
    if origin is not None and parts:
        return _values(parts[0], anchors)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{anchors[annotation]})"
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


def _meaning(field: FieldInfo) -> str:
    """The field's own docstring, else what the section that it holds says of itself first."""
    sections = _models(field.annotation)
    first = (sections[0].__doc__ or "").partition(".")[0] + "." if len(sections) == 1 else ""
    return _text(field.description or first)


def _text(doc: str | None) -> str:
    return re.sub(r"\s+", " ", (doc or "").strip()).replace("|", "\\|")
