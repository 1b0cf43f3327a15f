"""Text of models, files and programs in a page and in a terminal: shown, never obeyed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from common.errors import DataError
from envs.players.base import Ask
from envs.players.human import HumanPlayer
from envs.types import Episode, Finding, JudgeCall, Limits, Message, Row, Say, Score, SeatTrace
from eval.report.sections import (
    Chart,
    Curves,
    Evaluations,
    Facts,
    Prose,
    Series,
    Stat,
    Summary,
    Table,
    TranscriptRun,
    Transcripts,
)
from eval.report.transcripts import EpisodeRecord
from eval.report.write import render_report
from launch.commands.options import say
from tests.eval.samples import make_results, make_task
from tests.fuzz.harness import fuzz

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</script><script>alert(1)</script>",
    "</style><svg/onload=alert(1)>",
    "<!--",
    "]]>",
    "{{ 7*7 }}{% raw %}",
    "&lt;script&gt;",
    "javascript:alert(1)",
    "\u2028\u2029",
    "‮evil",
    "\x1b[2J\x1b]0;x\x07",
    "\x00",
    "\ud800",
    "<" * 2000,
)
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=12) | st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join)


class Page(HTMLParser):
    """Elements and attributes of a page, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: dict[str, int] = {}
        self.handlers: list[str] = []
        self.scripts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "srcset", "formaction")
        ]
        if tag == "script":
            self.scripts.append(dict(attrs).get("type") or "")


@cache
def plain_page() -> str:
    return page_of("plain words")


def read(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def assert_inert(html: str, plain: str) -> None:
    """The page has no elements but those of the same page with plain words, no handlers, no address but its own."""
    found, expected = read(html), read(plain)
    # Fewer are right: blank texts leave out what would show them.
    assert all(count <= expected.tags.get(tag, 0) for tag, count in found.tags.items())
    assert found.scripts == expected.scripts and not found.handlers
    assert all(a == "" or a.startswith("#") for a in found.addresses)


def page_of(text: str) -> str:
    """One section of each kind with `text` in every place that takes one."""
    task = make_task([1.0, 0.5, None], task="task").model_copy(
        update={
            "task": text or "x",
            "metric": text,
            "axis": text or "x",
            "baseline_note": text,
            "licence": text,
            "unscored": {text: 1},
        }
    )
    results = make_results(text, task).model_copy(
        update={"model": text, "index_refused": text, "absent": {text: text}, "provenance": {text: text}}
    )
    series = Series(text, (0.0, 1.0), (1.0, 2.0))
    sections = [
        Summary(text, (Stat(text, text, text),), text),
        Prose(text, text),
        Facts(text, {text: text}),
        Table(text, (text, "b"), [(text, text), (text, 1)], note=text),
        Curves(text, (Chart(text, (series,), text, text, text, reference=(1.5, text)),), text),
        Evaluations(text, (results,)),
        Transcripts(text, (TranscriptRun(text, (EpisodeRecord("k", episode_of(text)),)),)),
    ]
    html, _ = render_report(text, sections, subtitle=text or "x")
    return html


def episode_of(text: str) -> Episode:
    call = JudgeCall(text, text, {"messages": [text]}, text, text, 0.0, 0.0)
    return Episode(
        row=Row("task", text, text, {"x": text}),
        seed=1,
        says=(Say("a", text),),
        views={"a": (Message("user", text), Message("assistant", text))},
        traces={"a": SeatTrace("a", learnable=False)},
        outcomes={"a": Score(1.0, {text: 1.0}, explanation=text)},
        judge_calls=(call,),
        findings=(Finding(text, "a", 0, text),),
        opening={"a": 1},
        feedback_text={"a": text},
    )


@fuzz(8)
@given(text=TEXT)
def test_no_field_of_a_section_leaves_its_place_in_the_page(text: str) -> None:
    assert_inert(page_of(text), plain_page())


def test_what_the_page_embeds_cannot_end_its_script() -> None:
    html = page_of("</script><script>alert(1)</script>")
    blocks = html.split('<script type="application/octet-stream"')[1:]
    assert blocks
    for block in blocks:
        body = block.partition(">")[2].partition("<")[0]
        assert json.loads(gzip.decompress(base64.b64decode(body, validate=True)))


def test_the_page_runs_its_own_script_only_and_loads_nothing() -> None:
    html = page_of("plain")
    policy = html.partition('http-equiv="Content-Security-Policy" content="')[2].partition('">')[0]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "form-action 'none'" in policy
    assert "unsafe-eval" not in policy and "http:" not in policy and "https:" not in policy


STEERING = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08\x7f\u202egnp.exe"


def assert_plain(shown: str) -> None:
    steering = [c for c in shown if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    assert not steering, repr(shown)


def test_what_a_verb_prints_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(STEERING)
    say(STEERING, err=True)
    shown = capsys.readouterr()
    assert "\\x1b[2J" in shown.out
    assert_plain(shown.out)
    assert_plain(shown.err)
    assert_plain(str(DataError(STEERING, where=STEERING, fix=STEERING)))


def test_the_verbs_that_quote_models_files_and_programs_print_through_it() -> None:
    folder = Path(__file__).resolve().parents[2] / "launch" / "commands"
    for name in ("why", "task", "submit", "data", "evaluation", "doctor", "corpora", "config", "plan"):
        assert "typer.echo(" not in (folder / f"{name}.py").read_text(), name


def test_a_person_at_the_table_sees_the_codes_of_what_a_partner_writes() -> None:
    shown: list[str] = []
    player = HumanPlayer(show=shown.append, read=lambda prompt: "hello")
    session = player.join("a", learnable=False, limits=Limits(), episode_id="x")
    view = (Message("user", STEERING),)
    said = asyncio.run(session.act(Ask(view, view, 0, 0)))
    assert said.text == "hello" and len(shown) == 1
    assert_plain(shown[0])


def test_why_shows_the_codes_of_what_a_program_wrote(tmp_path: Path) -> None:
    from launch import cli

    (tmp_path / "config.yaml").write_text("{}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank0.log").write_text(f"line\n{STEERING[:-10]}word\n")
    done = CliRunner().invoke(cli.app, ["why", str(tmp_path)])
    assert done.exit_code == 0 and "rank0.log" in done.output
    assert_plain(done.output)
