"""Replies as JSON of a given schema: what to ask for, how to validate, what to say when it is wrong. Pure."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def response_format(
    schema: type[BaseModel], how: Literal["json_schema", "json_object", "none"]
) -> dict[str, Any] | None:
    """The request's `response_format`."""
    if how == "none":
        return None
    if how == "json_object":
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "json_schema": {"name": schema.__name__, "schema": strict_schema(schema), "strict": True},
    }


def strict_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema with every object closed and every property required."""
    return _closed(schema.model_json_schema())


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: _closed(value) for key, value in node.items() if key not in ("default", "title")}
    if isinstance(node.get("properties"), dict):
        out["properties"] = {name: _closed(value) for name, value in node["properties"].items()}
        out["required"] = list(node["properties"])
        out["additionalProperties"] = False
    return out


def schema_text(schema: type[BaseModel]) -> str:
    """For endpoints that take no schema: told in words."""
    return "Reply with one JSON object of this JSON schema and nothing else:\n" + json.dumps(strict_schema(schema))


def parse(schema: type[M], text: str) -> M | str:
    """The validated reply, or what is wrong with it."""
    try:
        return schema.model_validate_json(without_fence(text))
    except ValidationError as e:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'reply'}: {p['msg']}" for p in e.errors()[:5]]
        return "; ".join(problems)


def without_fence(text: str) -> str:
    """The inside of a Markdown block that is the whole text; any other text as it is. Linear in its length."""
    body = text.strip()
    first, newline, rest = body.partition("\n")
    if first.strip() not in ("```", "```json") or not newline or not rest.endswith("```"):
        return text
    return rest.removesuffix("```")


def reask(problem: str) -> str:
    """The message that asks again."""
    return f"That reply cannot be used: {problem}. Send the corrected JSON object only."
