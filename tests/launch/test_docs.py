"""What README, docs and help texts name exists, and every shipped recipe is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from common.config import load
from launch import cli
from launch.kinds import kind_of, load_recipe
from launch.plan.cluster import ClusterConfig
from launch.reference import reference
from launch.submit.config import ChainConfig
from megatron_osim.config import ArchitectureConfig

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


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
