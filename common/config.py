"""Closed configuration: pydantic models, YAML files with `extends`, `key.path=value` overrides.

Each package keeps its own models beside what they configure. An unknown key is an error that names the
nearest known one; all violations of a file are reported at once (ConfigError, exit 2).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import ConfigError, UsageError
from common.redact import IS_SECRET, redact
from common.yaml_text import MAX_DEPTH, NotYaml, parse_yaml


class Config(BaseModel):
    """Base of every configuration model: frozen, closed, documented by the docstrings of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ()
    """Dotted keys that a run may be resumed with other values of: bounds, which say nothing of what is computed."""

    def computed(self) -> dict[str, Any]:
        """What it says beside its bounds: a run folder goes on only where this is equal (`RunFolder.prepare`)."""
        raw = self.model_dump(mode="json")
        for key in self.MAY_CHANGE:
            *sections, name = key.split(".")
            section: Any = raw
            for one in sections:
                section = section[one] or {}
            section.pop(name, None)
        return raw


C = TypeVar("C", bound=BaseModel)
MAX_EXTENDS_DEPTH = 8


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse one YAML mapping safely."""
    if not _is_file(path):
        raise UsageError("no such recipe file", where=str(path), fix="give the path of an existing YAML file")
    try:
        value = parse_yaml(path.read_text())
    except (NotYaml, UnicodeDecodeError) as e:
        raise UsageError(f"not valid YAML: {e}", where=str(path), fix="correct the line named above") from e
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError("a recipe is a mapping of keys to values", where=str(path), fix="see launch/recipes/")
    return value


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of mappings; everything else in `over` replaces what `base` has."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def read_recipe(path: Path, *, depth: int = 0) -> dict[str, Any]:
    """A YAML file merged over what `extends: other.yaml` names, relative to itself, at the top or in any section."""
    if depth > MAX_EXTENDS_DEPTH:
        raise UsageError("`extends` goes in circles", where=str(path), fix="remove one `extends`")
    return _extended(read_yaml(path), path.parent, depth)


def _extended(section: Mapping[str, Any], folder: Path, depth: int) -> dict[str, Any]:
    raw = {k: _extended(v, folder, depth) if isinstance(v, Mapping) else v for k, v in section.items()}
    parent = raw.pop("extends", None)
    return raw if parent is None else merge(read_recipe(folder / str(parent), depth=depth + 1), raw)


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=3` as {"a": {"b": 3}}; the value is YAML."""
    key, sep, value = text.partition("=")
    if not sep or not key:
        raise UsageError(f"override {text!r:.80} is not key.path=value", fix="write for example train.lr=1e-4")
    parts = key.split(".")
    if len(parts) > MAX_DEPTH:
        raise UsageError(f"override {text!r:.80} is nested too deep", fix="write for example train.lr=1e-4")
    tree: Any = _parse_scalar(value)
    for part in reversed(parts):
        tree = {part: tree}
    return tree


def _parse_scalar(text: str) -> Any:
    try:
        value = parse_yaml(text)
    except NotYaml:
        return text
    if isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no dot) as a string.
        try:
            return float(value)
        except ValueError:
            return value
    return value


def load(model: type[C], recipe: Path | None, overrides: Sequence[str] = ()) -> C:
    """The validated configuration of `recipe` with `overrides` on top."""
    raw = read_recipe(recipe) if recipe else {}
    for text in overrides:
        raw = merge(raw, parse_override(text))
    return validate(model, raw, where=str(recipe) if recipe else "command line")


def validate(model: type[C], raw: Mapping[str, Any], *, where: str) -> C:
    """Build `model` from plain data, or raise one ConfigError with every violation."""
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        raise ConfigError([_describe(model, err) for err in e.errors()], where=where) from None


def _describe(model: type[BaseModel], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    path = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(sorted(known))}"
        return f"{path}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{path}: missing; add it to the recipe"
    if error["type"] == IS_SECRET:
        return f"{path}: {error['msg']}"
    return f"{path or model.__name__}: {error['msg']} (got {_shown(error.get('input'))})"


def _shown(value: Any) -> str:
    try:
        return f"{redact(repr(value)):.80}"
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"


def _fields_at(model: type[BaseModel], path: Sequence[str]) -> list[str]:
    """Field names of the (nested) model that `path` leads to; unions and lists are searched through."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        nested = [m for one in models for m in _models_in(one, part)]
        models = nested or models
    return [name for one in models for name in one.model_fields]


def _models_in(model: type[BaseModel], field: str) -> list[type[BaseModel]]:
    info = model.model_fields.get(field)
    if info is None:
        return []
    found: list[type[BaseModel]] = []
    stack: list[Any] = [info.annotation]
    while stack:
        annotation = stack.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        stack.extend(getattr(annotation, "__args__", ()))
    return found


def dump_yaml(config: BaseModel) -> str:
    """The resolved configuration as YAML that `load` reads back to an equal model."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
