"""YAML as plain values: nothing is constructed but mappings, lists, texts, numbers, booleans, dates and null.

Whatever the text, parsing ends soon and in bounded memory: aliases are allowed, but what they expand to is bounded,
and so is the depth. Pure.
"""

from __future__ import annotations

from typing import Any

import yaml

from common.errors import SHAPE_ERRORS

MAX_NODES = 100_000
"""Values of one document, with each alias counted as all that it stands for."""
MAX_DEPTH = 50


class NotYaml(ValueError):
    """The text is no YAML of plain values, or larger than a recipe can be."""


class _Loader(yaml.SafeLoader):
    """The safe loader, in which neither merged mappings (`<<`) nor brackets can grow without bound."""

    def fetch_flow_collection_start(self, token_class: type[yaml.Token]) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise NotYaml(f"nested deeper than {MAX_DEPTH}")
        super().fetch_flow_collection_start(token_class)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_NODES:
            raise NotYaml("merged mappings are larger than a recipe can be")


def parse_yaml(text: str) -> Any:
    """The value of one document. Raises NotYaml."""
    try:
        value = yaml.load(text, _Loader)
    except NotYaml:
        raise
    except yaml.YAMLError as e:
        raise NotYaml(str(e)) from e
    except SHAPE_ERRORS as e:
        # The library's constructors for tagged scalars and dates let these through.
        raise NotYaml(f"{type(e).__name__}: {e}") from e
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    waiting, nodes = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise NotYaml(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}")
        if isinstance(one, dict):
            waiting += [(child, depth + 1) for pair in one.items() for child in pair]
        elif isinstance(one, list | tuple | set):
            waiting += [(child, depth + 1) for child in one]
