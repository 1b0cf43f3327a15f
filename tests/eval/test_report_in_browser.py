"""The report in a real browser: clicking through it raises nothing, hostile text stays text, permalinks work."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from eval.compare import compare_all
from eval.report import (
    Chart,
    Comparisons,
    Curves,
    EpisodeRecord,
    Evaluations,
    Series,
    Stat,
    Summary,
    TranscriptRun,
    Transcripts,
    write_report,
)
from tests.eval.browser import Page, browse
from tests.eval.samples import make_results, make_task
from tests.eval.test_report import EVIL, latin, long_episode, records


def write_hostile_report(path: Path) -> None:
    runs = [make_results(n, make_task([0, 1, i, 1], run=n)) for i, n in enumerate(("base", "after"))]
    sections = [
        Summary(EVIL, [Stat(EVIL, EVIL)]),
        Curves("Loss", [Chart("loss", [Series(EVIL, [0, 1, 2], [3.0, 2.0, 1.5])])]),
        Evaluations("Results", runs),
        Comparisons("Compare", compare_all(runs, draws=300)),
        Transcripts(
            "Read", [TranscriptRun(r.name, records(r.name, [EVIL, "fine", EVIL, "ok"]), latin) for r in runs]
        ),
    ]
    write_report(path, EVIL, sections)


def test_hostile_transcripts_are_inert_and_every_view_opens(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    write_hostile_report(report)

    async def visit(page: Page) -> None:
        await page.open(report.as_uri())
        for tab in await page.run("[...document.querySelectorAll('.tabs a')].map((a) => a.dataset.tab)"):
            await page.run(f"location.hash = '#tab={tab}'")
            await page.until(f"document.getElementById('tab-{tab}').classList.contains('on')")
        await page.until("document.querySelectorAll('.item').length === 8")
        await page.until("document.querySelector('.detail .message') !== null")
        for mode in ("Tokens", "Row", "Private views"):
            await page.run(
                f"[...document.querySelectorAll('.modes button')].find((b) => b.textContent === '{mode}').click()"
            )
            await page.until(f"document.querySelector('.modes [aria-pressed=true]').textContent === '{mode}'")
        assert "<script>" in await page.run("document.querySelector('.detail').textContent")
        assert "U+D800" in await page.run("document.querySelector('.detail').textContent")
        assert await page.run("window.hacked === undefined && document.querySelectorAll('.detail img').length === 0")
        # A flip opens both sides of the comparison.
        await page.run("location.hash = '#tab=comparison'")
        await page.run("document.querySelector('.flip-list a').click()")
        await page.until("document.querySelectorAll('.side').length === 2")
        assert await page.run("[...document.querySelectorAll('.side-head b')].map((b) => b.textContent)") == [
            "base",
            "after",
        ]
        assert page.problems == []

    browse(tmp_path / "profile", visit)


def test_a_permalink_opens_its_episode_and_filters_narrow_the_list(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    write_hostile_report(report)

    async def visit(page: Page) -> None:
        await page.open(report.as_uri() + "#tab=transcripts&episode=after-1")
        await page.until("document.querySelector('.item[aria-current]')?.textContent.includes('row-1')")
        await page.run(
            "document.querySelector('[type=search]').value = 'row-2';"
            "document.querySelector('[type=search]').dispatchEvent(new Event('input'))"
        )
        await page.until("document.querySelectorAll('.item').length === 2")
        await page.run("location.hash = '#tab=transcripts&episode=gone'")
        await page.until("document.querySelector('.detail').textContent.includes('not in this file')")
        assert page.problems == []

    browse(tmp_path / "profile", visit, width=420)


def test_a_full_suite_report_opens_and_scrolls_to_its_end(tmp_path: Path) -> None:
    rng = random.Random(0)
    seeds = [EpisodeRecord(f"{t}", long_episode(rng, f"r{t}", f"task{t:02}")) for t in range(27)]
    many = [replace(r, key=f"{r.key}-{k}", epoch=k) for r in seeds for k in range(200)]
    report = tmp_path / "report.html"
    write_report(report, "full", [Transcripts("T", [TranscriptRun("run", many, latin)])])

    async def visit(page: Page) -> None:
        await page.open(report.as_uri())
        await page.until("document.querySelector('.detail .message') !== null")
        assert await page.run("document.querySelector('.count').textContent") == "5,400 of 5,400"
        await page.run("document.querySelector('.list').scrollTop = 1e9")
        await page.until("[...document.querySelectorAll('.item')].some((i) => i.textContent.includes('r26'))")
        await page.run("[...document.querySelectorAll('.item')].at(-1).click()")
        await page.until("document.querySelector('.side-head')?.textContent.includes('task26')")
        assert page.problems == []

    browse(tmp_path / "profile", visit)
