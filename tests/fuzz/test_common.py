"""Recipes, overrides, JSON files, metrics, and the redaction of secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from common.config import read_recipe
from common.errors import DataError, OsimError, UsageError
from common.files import read_json, read_jsonl
from common.redact import MARK, redact, redact_known
from common.run_folder import RunFolder
from common.text import json_in, printable, well_formed
from common.yaml_text import NotYaml, parse_yaml
from launch.kinds import KINDS, load_recipe
from tests.fuzz.harness import HOSTILE_TEXTS, deep, files, fuzz, memory_limit, mutated, survives, texts, to_json

ROOT = Path(__file__).resolve().parents[2]
RECIPES = {
    "midtrain": ROOT / "launch/recipes/midtrain-tiny-cpu.yaml",
    "quickstart": ROOT / "launch/recipes/quickstart-fast.yaml",
}
METRICS = b'{"step": 1, "phase": "rl", "time": 1.5, "loss": 0.1}\n{"step": 2, "phase": "rl", "time": 2.5}\n'
TWENTY_LEVELS = "\n".join(
    ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 20))]
)
MERGES = "\n".join(
    ["b0: &b0 {x: 1}", *(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 10)}]}}" for i in range(1, 20))]
)
BOMBS = {
    "aliases": TWENTY_LEVELS,
    "merges": MERGES,
    "itself": "a: &a {b: *a}",
    "list in itself": "&a [*a]",
    "deep": "[" * 5000,
    "deep mapping": "".join(" " * i + "a:\n" for i in range(400)),
    "object": "!!python/object/apply:os.system ['true']",
    "a date that is none": "x: 2020-99-99",
    "an integer of too many digits": "x: " + "9" * 5000,
    "hexadecimal": "x: 0x" + "f" * 5000,
    "a tag without its value": "x: !!int ''",
    "a boolean that is none": "x: !!bool perhaps",
    "base 60": "x: !!float 1:a",
    "unhashable": "? [a]\n: b",
    "binary": "x: !!binary '****'",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_recipe_that_explodes_or_constructs_something_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with memory_limit():
        assert isinstance(survives(lambda: load_recipe("midtrain", path, ())), OsimError)


def test_aliases_of_ordinary_size_still_work() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


@pytest.mark.parametrize("kind", RECIPES)
@fuzz(20)
@given(data=st.data())
def test_any_recipe_is_a_configuration_or_a_typed_error(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("recipe", numbered=True) / "recipe.yaml"
    as_json = json.dumps(read_recipe(RECIPES[kind])).encode()  # JSON is YAML, and its structure can be changed
    path.write_bytes(data.draw(files(as_json) | mutated(RECIPES[kind].read_bytes())))
    found = survives(lambda: load_recipe(kind, path, ()))
    assert isinstance(found, BaseModel | OsimError)


KEYS = st.sampled_from(
    ("steps", "optimizer.lr", "data.sequence_length", "parallel.tensor", "seed", "sampling", "a.b")
)


@fuzz(150)
@given(
    kind=st.sampled_from(sorted(KINDS)), key=KEYS | texts, value=texts | st.integers().map(str) | st.floats().map(str)
)
@example(kind="rl", key=".".join("a" * 5000), value="1")
@example(kind="rl", key="algorithm", value="0x" + "f" * 5000)
@example(kind="eval", key="model", value="{path: &a [*a]}")
def test_any_override_is_taken_or_refused(kind: str, key: str, value: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{}")
    survives(lambda: load_recipe(kind, recipe, (f"{key}={value}",)))


@fuzz(100)
@given(text=texts)
@example(text="\ud800")
def test_yaml_is_parsed_or_not_yaml(text: str) -> None:
    try:
        parse_yaml(text)
    except NotYaml as e:
        assert str(e)


@pytest.mark.parametrize("name", ["a" * 5000, "a\x00b", ".", "/dev/null/x"])
def test_extending_what_cannot_be_a_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"extends: " + to_json(name))
    with pytest.raises(UsageError):
        read_recipe(tmp_path / "r.yaml")


@fuzz(80)
@given(data=files(METRICS))
def test_metrics_are_read_or_refused_with_their_line(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(data)
    found = survives(lambda: RunFolder(tmp_path).read_metrics())
    assert isinstance(found, DataError) or all(isinstance(line, dict) for line in found)  # type: ignore[union-attr]
    survives(lambda: list(read_jsonl(tmp_path / "metrics.jsonl")))
    survives(lambda: read_json(tmp_path / "metrics.jsonl"))


def test_a_missing_json_file_and_a_folder_in_its_place_are_data_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(DataError, match=str(path)):
            read_json(path)


@fuzz(100)
@given(text=st.text() | texts)
def test_printable_text_steers_no_terminal_and_well_formed_text_can_be_encoded(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert not any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in shown)
    well_formed(text).encode()
    assert (
        text.isascii()
        or well_formed(text.encode("utf-8", "replace").decode()) == text.encode("utf-8", "replace").decode()
    )


@pytest.mark.parametrize("text", [*HOSTILE_TEXTS, to_json(deep()).decode(), to_json(deep(200)).decode(), "[1e999]"])
def test_a_models_text_is_plain_json_or_none(text: str) -> None:
    value = json_in(text)
    assert value is None or to_json(value)


@fuzz(60)
@given(
    user=st.text("abcDEF123._~-", min_size=1, max_size=12), password=st.text("abc:XYZ%_!-", min_size=1, max_size=12)
)
def test_credentials_in_an_address_never_pass(user: str, password: str) -> None:
    text = f"could not reach https://{user}:{password}@example.org/v1?x=1&api-key={password}zz&y=2 today"
    clean = redact(text)
    assert f"{user}:{password}" not in clean and f"{password}zz" not in clean
    assert clean.count(MARK) == 2 and clean.startswith("could not reach https://") and "example.org/v1?x=1&" in clean


@fuzz(40)
@given(secret=st.text(min_size=8, max_size=40), around=st.text(max_size=20))
def test_a_known_secret_is_cut_out_wherever_it_stands(secret: str, around: str) -> None:
    assert secret not in redact_known(around + secret + around + secret, (secret,)) or secret in MARK


@fuzz(40)
@given(data=mutated(b"plain: text\nlist: [1, 2]\n"))
def test_bytes_that_are_no_text_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(data)
    survives(lambda: read_recipe(tmp_path / "r.yaml"))
