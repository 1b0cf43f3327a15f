"""What README, docs and help texts name exists, and every shipped recipe is one."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
import typer

from common.config import Config, _fields_at, load
from envs import registry
from eval import suites
from launch import cli
from launch.kinds import KINDS, kind_of, load_recipe, model_of
from launch.plan.cluster import ClusterConfig
from launch.reference import reference
from launch.submit.config import ChainConfig
from launch.submit.submit import Request
from megatron_osim.config import ArchitectureConfig
from tests.launch.documentation import PAGES, ROOT, anchors, blocks, commands, inline_code, links, prose

RECIPES = sorted((ROOT / "launch" / "recipes").rglob("*.yaml"))
COMMAND = typer.main.get_command(cli.app)
FRAGMENTS = {"quickstart/rl.yaml"}
"""`rl.yaml` is only ever extended: it names no task."""


def examples(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """The words of every example in the help of a command and its subcommands."""
    for name, child in getattr(command, "commands", {}).items():
        yield from examples(child, (*path, name))
    text = (command.epilog or "").partition("Example:\n")[2].replace("\\\n", " ")
    yield from (shlex.split(line) for line in text.splitlines() if line.strip())


EXAMPLES = list(examples(COMMAND))


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; raises click's UsageError."""
    command, rest = COMMAND, list(arguments)
    while children := getattr(command, "commands", None):
        command = children[rest.pop(0)]
    command.make_context("osim", rest)


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_every_example_of_a_help_text_can_be_parsed_and_names_recipes_that_exist(words: list[str]) -> None:
    assert words[0] == "osim"
    parse(words[1:])
    for word in words:
        if word.startswith("launch/"):
            assert (ROOT / word).is_file(), word


def verbs_in_readme() -> list[list[str]]:
    """`osim data prepare / inspect` as [data, prepare], [data, inspect]; capital words are arguments."""
    table = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `osim")]
    found = []
    for call in re.findall(r"`osim ([^`]+)`", "\n".join(table)):
        verb, *more = call.split()
        names = [word for word in more if word != "/" and not word.isupper()]
        found += [[verb, name] for name in names] or [[verb]]
    return found


def test_readme_names_exactly_the_verbs_that_exist() -> None:
    def leaves(command: click.Command, path: list[str]) -> Iterator[list[str]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield path
        for name, child in (children or {}).items():
            yield from leaves(child, [*path, name])

    assert sorted(verbs_in_readme()) == sorted(leaves(COMMAND, []))


each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@each_page
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for file, anchor in links(page):
        target = page.parent / file if file else page
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target), f"{file}#{anchor}"


def test_every_page_is_reached_from_the_readme() -> None:
    """A new page is linked in docs/README.md."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            waiting += [page.parent / file for file, _ in links(page) if file]
    assert not {page.resolve() for page in PAGES} - seen


@each_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    owned = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "runs"}
    for code in inline_code(page):
        path = code.split(":")[0].split()[0]
        if path.partition("/")[0] in owned and re.fullmatch(r"[\w./-]+", path) and not re.search(r"[A-Z]{3}", path):
            assert (ROOT / path).exists() or (ROOT / path).with_suffix(".py").exists(), path


OTHER_PROGRAMS = {"source", "export", "cd", "curl", "pip", "git", "hf", "kill", "python3.11"}
SCRIPTS = re.compile(r"^([a-z-]+)(?::|\s)", re.MULTILINE)


class Understood(Exception):
    """Raised where a command would start its work: all its words were accepted."""


def stop(*_: Any, **__: Any) -> NoReturn:
    raise Understood


def stop_after_loading(kind: str, recipe: Path, overrides: Any, *_: Any, **__: Any) -> NoReturn:
    load_recipe(kind, recipe, overrides)
    raise Understood


def stop_before_submission(request: Request, *_: Any, **__: Any) -> NoReturn:
    kind = {"data": "prepare"}.get(request.kind, request.kind)
    stop_after_loading(kind, request.recipe, request.overrides)


@pytest.fixture
def osim(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command line up to the point where its work begins: options, recipe, overrides and names are checked."""
    import data_tools.prepare
    import launch.evaluation
    import launch.plan.recipes
    import launch.quickstart.run
    import launch.submit.submit
    import launch.training

    for folder in ("launch", "docs", "envs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch.training, "midtrain", stop)
    monkeypatch.setattr(launch.training, "rl", stop)
    monkeypatch.setattr(launch.evaluation, "evaluate", stop)
    monkeypatch.setattr(launch.evaluation, "dry_run", stop)
    monkeypatch.setattr(data_tools.prepare, "prepare", stop)
    monkeypatch.setattr(launch.plan.recipes, "plan_recipe", stop_after_loading)
    monkeypatch.setattr(launch.submit.submit, "plan_recipe", stop_before_submission)
    monkeypatch.setattr(launch.submit.submit, "plan_chain", stop)
    runs_here = {("midtrain",), ("rl",), ("eval", "run"), ("data", "prepare"), ("config", "show"), ("plan",)}
    runs_here |= {("launch", kind) for kind in ("midtrain", "rl", "eval", "data", "chain")}

    def accept(words: list[str]) -> None:
        parse(words)
        verb = tuple(words[:2]) if words[0] in ("eval", "data", "launch", "config", "task") else (words[0],)
        if verb in {("play",), ("task", "check"), ("task", "play")}:
            registry.get(words[len(verb)])
        if verb not in runs_here or "--measured" in words:
            return
        for n, word in enumerate(words):
            if verb == ("eval", "run") and word in ("--model", "-m") and not words[n + 1].startswith("api:"):
                (tmp_path / words[n + 1]).mkdir(parents=True, exist_ok=True)
            if verb == ("eval", "run") and word in ("--suite", "-s"):
                suites.resolve(words[n + 1])
        with contextlib.suppress(Understood):
            cli.app(words, prog_name="osim", standalone_mode=False)

    return accept


@each_page
def test_every_command_of_a_page_is_understood(page: Path, osim: Any, tmp_path: Path) -> None:
    """Blocks `LANGUAGE FILE` are written first: commands read them."""
    for block in blocks(page):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text)
    for words in commands(page):
        program, *rest = words
        if program == "osim":
            osim(rest)
        elif program == "cp":
            shutil.copy(rest[0], rest[1])
        elif program == "make":
            targets = SCRIPTS.findall((ROOT / "Makefile").read_text())
            assert {w for w in rest if "=" not in w} <= set(targets), words
        elif words[:2] == ["python", "-m"]:
            assert words[2] == "pytest" or importlib.util.find_spec(words[2]) is not None, words
        else:
            assert program in OTHER_PROGRAMS, words


@each_page
def test_commands_stand_in_fenced_blocks_and_are_told_from_what_they_print(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= {"sh", "text", "yaml", "json", "python", "mermaid"}
    assert not re.findall(r"^(?: {4}|\t)(?:osim|make|python) .*$", prose(page), re.MULTILINE)


def known_keys(parts: list[str]) -> bool:
    """Whether some kind of recipe has this key path, at its top or in any of its sections."""
    pending: list[type[Any]] = [*(model_of(kind) for kind in KINDS), ClusterConfig, ChainConfig]
    seen: set[type[Any]] = set()
    while pending:
        model = pending.pop()
        if model in seen:
            continue
        seen.add(model)
        if parts[0] in model.model_fields and all(
            part in _fields_at(model, parts[:n]) or "dict[" in str(model.model_fields[parts[0]].annotation)
            for n, part in enumerate(parts)
        ):
            return True
        pending += [m for field in model.model_fields for m in _models_of(model, field)]
    return False


def _models_of(model: type[Any], field: str) -> list[type[Any]]:
    from common.config import _models_in

    return [m for m in _models_in(model, field) if issubclass(m, Config)]


@each_page
def test_every_override_that_a_page_names_is_a_key_of_a_recipe(page: Path) -> None:
    if page.name == "decisions.md":
        return  # It also names keys of other programs, and keys that are gone.
    for code in set(inline_code(page)) - {"key.path=value"}:
        if match := re.match(r"([a-z_]+(?:\.[a-z_0-9]+)*)=", code):
            assert known_keys(match[1].split(".")), code


def test_every_key_of_every_recipe_says_what_it_means() -> None:
    assert not re.findall(r"^\| .* \|  \|$", reference(), re.MULTILINE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: str(p.relative_to(ROOT / "launch" / "recipes")))
def test_every_shipped_recipe_validates(recipe: Path) -> None:
    name = str(recipe.relative_to(ROOT / "launch" / "recipes"))
    if name.startswith("clusters/"):
        load(ClusterConfig, recipe)
    elif name.startswith("chains/"):
        load(ChainConfig, recipe)
    elif name.startswith("architectures/"):
        load(ArchitectureConfig, recipe)
    elif name not in FRAGMENTS:
        kind = kind_of(recipe)
        load_recipe(kind, recipe, overrides_of(name, kind))


def overrides_of(name: str, kind: str) -> tuple[str, ...]:
    """What the recipe leaves to its user."""
    return {
        "quickstart/prepare.yaml": ("inputs=[{glob: x.jsonl}]", "tokenizer=x", "output=x"),
        "quickstart/midtrain.yaml": ("data.sources=[{name: x, prefixes: [x]}]",),
        "quickstart/eval.yaml": ("model.path=x",),
    }.get(name, ("model=x",) if kind == "rl" else ())


def test_reference_page_is_what_the_program_says() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    assert page == reference(), "run: osim config reference > docs/reference.md"
