"""Tools of a service agent: what one is, calling one by name, and the tools that both domains have. Pure.

A call never raises: wrong names, arguments and requests are answered with an error text and change nothing.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envs.tasks.tau_usi.database import Database, ToolError

Arguments = Mapping[str, Any]
Run = Callable[..., tuple[Any, Database]]
"""(database, **arguments) → (what the agent is told, the database afterwards); raises ToolError."""
OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Tool:
    """One tool. `parameters`: name and what it is; all of them must be given."""

    name: str
    purpose: str
    parameters: Mapping[str, str]
    run: Run
    writes: bool = False


Toolbox = Mapping[str, Tool]


def toolbox(tools: Sequence[Tool]) -> Toolbox:
    """Tools by name."""
    return {tool.name: tool for tool in tools}


def described(tools: Toolbox) -> str:
    """All tools, for the agent's instructions."""
    lines = []
    for tool in tools.values():
        given = "; ".join(f"{name}: {what}" for name, what in tool.parameters.items()) or "none"
        lines.append(f"- {tool.name}: {tool.purpose} Arguments: {given}.")
    return "\n".join(lines)


def call(tools: Toolbox, database: Database, name: str, arguments: Arguments) -> tuple[str, Database]:
    """What the agent is told, and the database afterwards."""
    tool = tools.get(name)
    if tool is None:
        return f"Error: there is no tool {name!r}", database
    if set(arguments) != set(tool.parameters):
        return f"Error: {name} takes exactly {', '.join(tool.parameters) or 'no arguments'}", database
    try:
        told, after = tool.run(database, **arguments)
    except ToolError as e:
        return f"Error: {e}", database
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as e:
        # Arguments of a wrong shape (a text where a list of objects belongs): the caller's fault, told as such.
        return f"Error: malformed arguments ({type(e).__name__})", database
    return told if isinstance(told, str) else json.dumps(told), after


def calculated(expression: str) -> str:
    """The value of an arithmetic expression. Raises ToolError; nothing is evaluated but numbers and + - * /."""
    try:
        return f"{round(_value(ast.parse(expression, mode='eval').body), 2)}"
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        raise ToolError("not an arithmetic expression") from None


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return float(OPERATORS[type(node.op)](_value(node.left), _value(node.right)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    raise ToolError("not an arithmetic expression")


USER_DETAILS = Tool(
    "get_user_details", "Shows a customer.", {"user_id": "id"}, lambda db, user_id: (db.get("users", user_id), db)
)
COMMON = (
    Tool(
        "calculate",
        "Computes.",
        {"expression": "numbers with + - * / ( )"},
        lambda db, expression: (calculated(expression), db),
    ),
    Tool("think", "Notes a thought; nothing happens.", {"thought": "text"}, lambda db, thought: ("", db)),
    Tool(
        "transfer_to_human_agents",
        "Hands the customer to a person, if the request is outside what the tools can do.",
        {"summary": "text"},
        lambda db, summary: ("Transfer successful", db),
    ),
)
