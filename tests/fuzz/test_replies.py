"""What models say: a policy's texts in every task under every profile, judges' replies, tools' arguments.

A policy must not be able to crash a parser: an episode that ends as a bug has no score, which can pay better than a
bad one.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import hash_json
from envs import registry
from envs.client import structured
from envs.detectors.base import DETECTORS, Context, detect
from envs.env import Done, FeedbackAsk, FormatError, JudgeAsk, JudgePanel
from envs.judges.spec import JudgeSpec
from envs.registry import TaskSpec
from envs.tasks import files as task_files
from envs.tasks.sotopia.actions import Action, read_action
from envs.tasks.tau_usi import prompts, survey
from envs.tasks.tau_usi.database import ToolError
from envs.tasks.tau_usi.rows import tasks_in
from envs.tasks.tau_usi.tools import calculated
from envs.types import Feedback, Row, Score, Unscored
from tests.fuzz.harness import HOSTILE_TEXTS, cpu_limit, deep, fuzz, survives, texts, to_json, values

FRAGMENTS = (
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
    "<seed:think>",
    "A",
    "[[B]]",
    "A: 7, B: 3",
    "yes",
    "no",
    "Answer:",
    '{"action_type": "speak", "argument": "hi"}',
    '{"action_type": "leave"}',
    "```json\n",
    "\n```",
    "```",
    "###STOP###",
    '<call>{"name": "calculate", "arguments": {"expression": "1/0"}}</call>',
    "<call>",
    "</call>",
    '{"choice": "A"}',
    '{"name": "get_user_details", "arguments": {"user_id": {}}}',
    '{"predicted_comment": "B"}',
    "choice: C",
    "1",
    "0.5",
    "10/10",
    "[ ]",
    "(a)",
    "I offer: ",
    "DEAL",
    "\\ud800",
    '"\\ud83d"',
    "\n",
    " ",
    "<answer>A</answer>",
    "<NAME>",
    "¹²³",
    "٣",
    "①",
    "offer 3",
    "accept",
    "<END>",
    "**",
    "#",
    "1,2,3,4,5",
    "-1",
    "1e400",
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    "\\",
)
SAID = (
    st.lists(st.sampled_from(FRAGMENTS) | texts, max_size=6)
    .map("".join)
    .map(
        lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # as `play` makes it
    )
)
REPEATED = (
    "<answer>",
    "</answer>",
    "<answer>a",
    "{",
    '{"',
    '{"a":',
    "[",
    "[[A]]",
    "\n",
    "\n ",
    " ",
    "```\n",
    "```",
    "a ",
    "A: 1,",
    "(",
    "x",
    "1",
    "1.",
    "<think>",
    "<call>",
    "ab ",
    "é",
    "*",
    "the cat. ",
    "“",
    "A. ",
    "\t",
    "<",
    "- ",
)
PIECES = REPEATED if settings.get_current_profile_name() == "long" else REPEATED[::6]
MAX_STEPS = 12
TASKS = [(name, profile) for name in registry.names() for profile in registry.get(name).profiles]


def rows_of(spec: TaskSpec) -> list[Row]:
    return list(spec.examples() if spec.examples is not None else spec.rows("test", 2, 0))


def drive(spec: TaskSpec, profile: str, row: Row, said: list[str]) -> None:
    """An episode whose every seat says the next of `said`, and everything that can be asked of it afterwards."""
    env = spec.env(profile)  # type: ignore[arg-type]
    state = env.start(row, Random(0))
    for step in range(MAX_STEPS):
        seats = env.turn(state)
        if isinstance(seats, Done):
            break
        for seat in seats:
            for message in env.view(state, seat):
                message.content.encode()
            heard = env.hear(state, seat, said[step % len(said)])
            if isinstance(heard, FormatError):
                heard.detail.encode()
                return
            state = heard
    for seat in env.seats:
        orjson.dumps([m.content for m in env.view(state, seat)])
        feedback = env.feedback(state, seat)
        assert feedback is None or isinstance(feedback, Feedback | FeedbackAsk)
    for outcome in env.score(state).values():
        assert isinstance(outcome, Score | Unscored | JudgeAsk | JudgePanel)
        if isinstance(outcome, JudgeAsk | JudgePanel):
            for _, fields in outcome.questions:
                hash_json({name: str(value) for name, value in fields.items()})
        else:
            orjson.dumps(getattr(outcome, "parts", {}))


@pytest.mark.parametrize(("name", "profile"), TASKS, ids=lambda v: str(v))
@fuzz(3)
@given(said=st.lists(SAID, min_size=1, max_size=4))
def test_no_text_of_a_policy_crashes_a_task(name: str, profile: str, said: list[str]) -> None:
    spec = registry.get(name)
    with cpu_limit():
        drive(spec, profile, rows_of(spec)[0], said)


@pytest.mark.parametrize("name", registry.names())
def test_no_repeated_text_makes_a_parser_or_a_detector_hang(name: str) -> None:
    spec = registry.get(name)
    row = rows_of(spec)[0]
    for piece in PIECES:
        text = piece * (16_000 // len(piece))
        for profile in spec.profiles:
            with cpu_limit(30):
                drive(spec, profile, row, [text, text[:-1] + "<answer>A</answer>"])


@pytest.mark.parametrize("name", DETECTORS)
def test_no_repeated_text_makes_a_detector_hang(name: str) -> None:
    for piece in PIECES:
        text = piece * (16_000 // len(piece))
        with cpu_limit(30):
            detect(Context(text, "a", (text[:4000],), (text[:4000],), text[:4000], (text[:4000],)), (name,))


@fuzz(60)
@given(text=SAID | texts, earlier=texts)
def test_any_turn_can_be_inspected(text: str, earlier: str) -> None:
    detect(Context(text, "a", (earlier,), (earlier,), earlier, (earlier,)))


def replies_of(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a JSON schema of ours allows, at the edges of what it allows."""
    if "$ref" in schema:
        return replies_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of([replies_of(one, definitions) for one in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "object":
            inner = {name: replies_of(one, definitions) for name, one in schema.get("properties", {}).items()}
            if not inner and isinstance(schema.get("additionalProperties"), dict):
                return st.dictionaries(st.text(max_size=5), replies_of(schema["additionalProperties"], definitions))
            return st.fixed_dictionaries(inner)
        case "array":
            items = replies_of(schema.get("items", {}), definitions)
            least, most = schema.get("minItems", 0), schema.get("maxItems", 4)
            return st.lists(items, min_size=least, max_size=max(most, least))
        case "integer":
            least, most = schema.get("minimum", -(2**70)), schema.get("maximum", 2**70)
            return st.sampled_from((least, most)) | st.integers(least, most)
        case "number":
            return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
    return st.sampled_from(("", "A", "x" * 500, "B: 2", "￿")) | st.text(max_size=20)


JUDGES = [(name, judge.id) for name in registry.names() for judge in registry.get(name).judges]


@pytest.mark.parametrize(("name", "judge"), JUDGES, ids=lambda v: str(v))
@fuzz(3)
@given(data=st.data())
def test_every_verdict_that_a_schema_allows_becomes_an_outcome(name: str, judge: str, data: st.DataObject) -> None:
    spec = registry.get(name)
    asked = next(j for j in spec.judges if j.id == judge)
    schema = asked.schema.model_json_schema()
    reply = data.draw(replies_of(schema, schema.get("$defs", {})))
    value = structured.parse(asked.schema, json.dumps(reply))
    if isinstance(value, str):
        return  # refused by a validator beyond the schema: asked again
    for profile in spec.profiles:
        for ask in asks(spec, profile):
            ids = [question[0] for question in ask.questions]
            if set(ids) == {judge}:
                assert isinstance(ask.outcome([value] * len(ids)), Score | Unscored)


def asks(spec: TaskSpec, profile: str) -> list[JudgeAsk | JudgePanel]:
    """What an episode of plain words asks its judges."""
    env = spec.env(profile)  # type: ignore[arg-type]
    state = env.start(rows_of(spec)[0], Random(0))
    for _ in range(MAX_STEPS):
        seats = env.turn(state)
        if isinstance(seats, Done):
            break
        for seat in seats:
            heard = env.hear(state, seat, "Well, let me see.")
            if isinstance(heard, FormatError):
                return []
            state = heard
    return [o for o in env.score(state).values() if isinstance(o, JudgeAsk | JudgePanel)]


SCHEMAS: list[JudgeSpec] = list({j.id: j for name in registry.names() for j in registry.get(name).judges}.values())


@fuzz(60)
@given(spec=st.sampled_from(SCHEMAS), data=st.data())
def test_any_reply_is_a_verdict_or_says_what_is_wrong(spec: JudgeSpec, data: st.DataObject) -> None:
    schema = spec.schema.model_json_schema()
    good = replies_of(schema, schema.get("$defs", {})).map(json.dumps)
    text = data.draw(
        good.map(lambda t: f"```json\n{t}\n```") | values.map(lambda v: to_json(v).decode("utf-8", "replace")) | texts
    )
    found = structured.parse(spec.schema, text)
    assert isinstance(found, spec.schema) or found
    orjson.dumps(found if isinstance(found, str) else found.model_dump())


def test_a_fence_of_many_lines_is_taken_off_in_linear_time() -> None:
    with cpu_limit(5):
        structured.parse(SCHEMAS[0].schema, "```\n" + "\n" * 2_000_000)
        assert structured.without_fence('```json\n{"a": 1}\n```') == '{"a": 1}\n'
        assert structured.without_fence("```\nx") == "```\nx"


@pytest.mark.parametrize(
    "text",
    [
        *HOSTILE_TEXTS,
        to_json(deep()).decode(),
        '{"action_type": "speak", "argument": "\\ud800"}',
        '{"action_type": [], "argument": 1}',
        '{"action_type": {"a": 1}}',
        '{"n": ' + "9" * 5000 + "}",
    ],
)
def test_actions_calls_and_surveys_are_read_from_any_text(text: str) -> None:
    for lenient in (False, True):
        found = read_action(text, lenient=lenient)
        if isinstance(found, Action):
            found.shown("Ann").encode("utf-8", "surrogatepass")
    for call in prompts.calls_in(f"<call>{text}</call>"):
        json.dumps(call)
    assert survey.read(text) is not None


@fuzz(100)
@given(
    expression=texts
    | st.text("0123456789.+-*/()eE ", max_size=30)
    | st.just("(" * 2000)
    | st.just("9" * 400 + "*1.0")
)
def test_arithmetic_of_an_agent_is_computed_or_refused(expression: str) -> None:
    try:
        calculated(expression)
    except ToolError as e:
        assert str(e)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "(" * 100_000,
        "['a', 'b']",
        "['\\ud800']",
        "[0x" + "f" * 5000 + "]",
        "{1: 2}",
        "'" * 5,
        "[" + "-" * 20_000 + "1]",
        "\x00",
        "[" + "1," * 50_000 + "]",
    ],
)
def test_lists_in_published_files_are_read_or_taken_as_text(text: str) -> None:
    with cpu_limit(20):
        for one in task_files.texts(text):
            one.encode()


@fuzz(40)
@given(source=texts | st.just("(" * 5000) | st.just("Task(a=" * 200) | st.just("Task(x=" + "[" * 90 + "]" * 90 + ")"))
def test_a_python_file_of_tasks_is_parsed_and_never_run(source: str) -> None:
    survives(lambda: tasks_in(source, "tasks.py"))
