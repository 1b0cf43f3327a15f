"""README and docs as data: fenced blocks, the commands in them, inline code, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. Its first line is LANGUAGE or LANGUAGE FILE, where the block is that file's content."""

    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = []
    for head, text in FENCE.findall(page.read_text()):
        language, _, file = head.strip().partition(" ")
        found.append(Block(language, file, text))
    return found


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in the `sh` blocks; comments are left out, continued lines are one."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield words


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def links(page: Path) -> list[tuple[str, str]]:
    """Relative links as (file, anchor); the file is empty for a link within the page."""
    found = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page))
    return [(file, anchor) for file, anchor in found]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them: `-1`, `-2` … tell equal headings apart."""
    seen: dict[str, int] = {}
    out = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        out.add(f"{slug}-{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return out
