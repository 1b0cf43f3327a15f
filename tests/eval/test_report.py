"""The report is one inert, self-contained file that stays small and loses nothing without saying so."""

from __future__ import annotations

import base64
import gzip
import json
import math
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.errors import UsageError
from envs.types import Episode, Finding, JudgeCall, Segment
from eval.compare import compare_all
from eval.report import (
    Chart,
    Comparisons,
    Curves,
    EpisodeRecord,
    Evaluations,
    Facts,
    Prose,
    Series,
    Stat,
    Summary,
    Table,
    TranscriptRun,
    Transcripts,
    curves_from_metrics,
    token_pieces,
    write_report,
)
from eval.report.charts import line_plot, log_ticks, nice_ticks, radar
from eval.report.run_facts import provenance
from eval.report.transcripts import pack
from eval.report.write import render_report
from eval.soul_index import soul_index
from eval.stats import Estimate, JointBootstrap
from tests.eval.samples import make_episode, make_results, make_task

EVIL = '<script>window.hacked = 1</script><img src=x onerror="hacked=1"> \ud800 \u202e reversed \x00 </script>'


def latin(ids) -> list[str]:  # type: ignore[no-untyped-def]
    return [bytes([i]).decode("latin1") for i in ids]


def unpack(html: str, name: str):  # type: ignore[no-untyped-def]
    found = re.search(rf'id="{name}">([^<]*)</script>', html)
    assert found
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def records(run: str, texts: list[str]) -> list[EpisodeRecord]:
    return [EpisodeRecord(f"{run}-{i}", make_episode(t, row=f"row-{i}"), part="order 0") for i, t in enumerate(texts)]


def full_page(text: str = EVIL) -> str:
    runs = [
        make_results(n, make_task([0, 1, i, 1], run=n), make_task([0.2, 0.4, 0.9], task="sotopia_hard", run=n))
        for i, n in enumerate(("base", text))
    ]
    runs = [r.model_copy(update={"index": soul_index(r.tasks, JointBootstrap(0, draws=300))}) for r in runs]
    sections = [
        Summary("Glance", [Stat("accuracy", "0.5", text, "good")], text=text),
        Prose("Words", f"one\n\n{text}"),
        Table(
            "Stages", ["name", text], [["a", 1.5], [text, Estimate(0.5, 0.4, 0.6, 10, 5)], ["none", None]], note=text
        ),
        Facts("Provenance", {"command": text}),
        Curves("Loss", [Chart(text, [Series(text, [0, 1, 2], [3.0, 2.0, math.nan])])]),
        Evaluations("Results", runs),
        Comparisons("Compare", compare_all(runs, draws=300)),
        Transcripts("Read", [TranscriptRun(n, records(n, [text, "fine"]), latin) for n in ("base", text)]),
    ]
    return render_report(text, sections)[0]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs) -> None:  # type: ignore[no-untyped-def]
        self.seen.append((tag, dict(attrs)))


def test_text_of_models_never_becomes_markup() -> None:
    parser = Tags()
    html = full_page()
    parser.feed(html)
    executable = [a for t, a in parser.seen if t == "script" and a.get("type") is None]
    assert len(executable) == 1, "only the page's own script"
    assert not [t for t, _ in parser.seen if t == "img"]
    assert not [name for _, attrs in parser.seen for name in attrs if name.startswith("on")]
    html.encode("utf-8")
    episode = unpack(html, "block-0")[0]
    assert "<script>" in episode["says"][0][1] and "\ud800" in episode["says"][0][1]


def test_page_asks_the_network_for_nothing() -> None:
    html = full_page("plain")
    parser = Tags()
    parser.feed(html)
    policy = next(str(a["content"]) for t, a in parser.seen if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy and "connect-src 'none'" in policy
    assert not [a for _, a in parser.seen if "src" in a]
    assert all(
        a["href"].startswith("#") or a["href"] == "" for t, a in parser.seen if t == "a" and a.get("href") is not None
    )
    assert not re.search(
        r"https?://", re.sub(r'<script type="application/octet-stream".*?</script>', "", html, flags=re.S)
    )


def test_script_hash_in_the_policy_is_that_of_the_script() -> None:
    import hashlib

    html = full_page("plain")
    script = re.search(r"<script>(.*?)</script>\n</body>", html, flags=re.S)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"sha256-{digest}" in html


def test_transcript_holds_views_tokens_judges_flags_and_outcome() -> None:
    episode = replace(
        make_episode("the box"),
        findings=(Finding("markdown", "reader", 0, "two marks"),),
        judge_calls=(JudgeCall("judge", "m", {"prompt": "rate"}, '{"score": 7}', None, 0.01, 1.0),),
    )
    html, packed = render_report("t", [Transcripts("T", [TranscriptRun("r", [EpisodeRecord("k", episode)], latin)])])
    shown = unpack(html, "block-0")[0]
    sampled = [s for s in shown["traces"]["reader"]["segments"] if s["sampled"]]
    assert "".join(sampled[0]["t"]) == "the box" and set(sampled[0]["lp"]) == {-500}
    assert shown["views"]["reader"][1] == ["assistant", "the box"]
    assert shown["judge"][0]["reply"] == '{"score": 7}' and "rate" in shown["judge"][0]["request"]
    assert shown["findings"] == [["markdown", "reader", 0, "two marks"]]
    entry = unpack(html, "episode-index")["episodes"][0]
    assert entry[4:9] == ["k", 1.0, None, 0, ["markdown"]] and (packed.shown, packed.total) == (1, 1)


def long_episode(rng: random.Random, row: str, task: str) -> Episode:
    words = ["maybe", "the", "kitchen", "I", "think", "she", "left", "before", "that", "no", "really", "box", "crate"]
    text = " ".join(rng.choice(words) for _ in range(40))
    episode = make_episode(text, task=task, row=row, value=rng.random(), turns=2)
    trace = episode.traces["reader"]
    # Log-probs as random as an engine's, which is what costs space.
    segments = tuple(
        replace(s, logprobs=tuple(-rng.expovariate(1.5) for _ in s.ids)) if s.trainable else s for s in trace.segments
    )
    return replace(episode, traces={"reader": replace(trace, segments=segments)})


def test_a_tenth_of_27_tasks_with_200_episodes_fits_into_a_tenth_of_20_megabytes(tmp_path: Path) -> None:
    rng = random.Random(0)
    tasks = [f"task{t:02}" for t in range(27)]
    # Every episode is another one: repeated ones would compress to nothing.
    many = [EpisodeRecord(f"{t}-{i}", long_episode(rng, f"r{i}", t)) for t in tasks for i in range(20)]
    stats = write_report(tmp_path / "report.html", "suite", [Transcripts("T", [TranscriptRun("run", many, latin)])])
    assert stats.episodes_shown == stats.episodes_total == 540
    assert stats.size_bytes == (tmp_path / "report.html").stat().st_size <= 2_000_000


def test_when_space_is_short_what_needs_attention_is_kept_and_the_page_says_so() -> None:
    rng = random.Random(1)
    plain = [EpisodeRecord(f"p{i}", long_episode(rng, f"p{i}", "hitom")) for i in range(120)]
    failed = EpisodeRecord(
        "failed", replace(long_episode(rng, "f", "hitom"), outcomes=make_episode("", value=None).outcomes)
    )
    flagged = EpisodeRecord(
        "flagged", replace(long_episode(rng, "g", "hitom"), findings=(Finding("d", "reader", 0, ""),))
    )
    packed = pack([("r", [*plain, failed, flagged], latin)], max_bytes=60_000, urgent=["p77"])
    shown = {e[4] for e in json.loads(gzip.decompress(base64.b64decode(packed.index)))["episodes"]}
    assert {"failed", "flagged", "p77"} <= shown
    assert 3 < packed.shown < packed.total == 122 and packed.size < 75_000
    again = pack([("r", [*plain, failed, flagged], latin)], max_bytes=60_000, urgent=["p77"])
    assert again == packed, "the same episodes give the same file"
    html, _ = render_report("t", [Transcripts("T", [TranscriptRun("r", plain, latin)])], max_bytes=1_540_000)
    assert "of 120 episodes are in this file" in html


def test_comparison_links_its_flips_to_transcripts() -> None:
    runs = [make_results(n, make_task([0, 1, i, 1], run=n)) for i, n in enumerate("ab")]
    html, _ = render_report("t", [Comparisons("C", compare_all(runs, draws=300))])
    assert "episode=b-2&amp;with=a-2" in html


def test_two_transcript_sections_are_refused() -> None:
    with pytest.raises(UsageError, match="one transcripts section"):
        render_report("t", [Transcripts("A", []), Transcripts("B", [])])


def test_empty_sections_say_that_they_are_empty() -> None:
    nothing = make_results("r", make_task([None, None]))
    html, _ = render_report(
        "t",
        [
            Curves("Loss", []),
            Curves("NaN", [Chart("c", [Series("s", [0], [math.nan])])]),
            Evaluations("E", [nothing]),
            Transcripts("T", []),
        ],
    )
    assert "Nothing was recorded" in html and "No finite value" in html
    assert "no scored episode" in html and "No episode was recorded" in html


def test_curves_come_from_metrics_by_phase_and_survive_gaps() -> None:
    lines = [
        {"step": i, "phase": "midtrain", "time": 0.0, "loss": 3.0 - i, "note": "x", "done": True} for i in range(3)
    ]
    lines += [{"step": 0, "phase": "grpo", "time": 0.0, "reward": 0.5}]
    curves = curves_from_metrics("Midtraining", lines, phase="midtrain")
    assert [c.title for c in curves.charts] == ["loss"] and list(curves.charts[0].series[0].y) == [3.0, 2.0, 1.0]
    assert not curves_from_metrics("x", lines, phase="midtrain", metrics=["absent"]).charts
    assert (
        curves_from_metrics("x", lines, phase="grpo", metrics=["reward"], labels={"reward": "mean reward"})
        .charts[0]
        .title
        == "mean reward"
    )


def test_long_curves_are_thinned_but_keep_their_extremes() -> None:
    y = [0.0] * 5000
    y[2500] = 9.0
    plot = line_plot(Chart("c", [Series("s", list(range(5000)), y)]))
    assert plot is not None and len(plot.points[0]) <= 400 and plot.lines[0].band
    assert max(float(t.label) for t in plot.y_ticks) >= 8


def test_ticks_are_round_and_inside() -> None:
    assert nice_ticks(0, 1, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert log_ticks(0.05, 3) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert line_plot(Chart("flat", [Series("s", [1], [2.0])])) is not None


def test_radar_needs_three_axes() -> None:
    e = Estimate(0.5, 0.4, 0.6, 10, 10)
    assert radar(["A", "B"], [("r", {"A": e, "B": e})]) is None
    shape = radar(["A", "B", "C"], [("r", {"A": e, "B": e, "C": e}), ("partial", {"A": e})])
    assert shape is not None and [s.name for s in shape.shapes] == ["r"]


def test_token_pieces_concatenate_and_keep_split_characters_whole() -> None:
    raw = "né 😀 ok".encode()

    def decode(ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")

    pieces = token_pieces(decode)(list(raw))
    assert "".join(pieces) == "né 😀 ok" and len(pieces) == len(raw) and "😀" in pieces
    assert token_pieces(decode)([0xF0, 0x9F]) == ["", "\ufffd"]


def test_untrained_and_given_tokens_are_told_apart() -> None:
    trace = make_episode("ab", turns=2).traces["reader"]
    assert [s.trainable for s in trace.segments] == [False, True, False, True]
    assert isinstance(trace.segments[0], Segment)


def test_a_report_names_no_folder_of_the_machine_it_was_made_on(tmp_path: Path) -> None:
    command = ["/opt/x/bin/osim", "eval", "run", "data=/home/me/rows", "rows.fantom=/home/me/fantom.jsonl", "out"]
    command += ["client.judge.base_url=http://host:1/v1", "runs/b/hf"]
    inputs = {"model": "/home/me/model 0a1b", "judge": "m at https://host/v1"}
    (tmp_path / "manifest.json").write_text(json.dumps({"command": command, "inputs": inputs}))
    facts = provenance([tmp_path])
    assert isinstance(facts, Facts)
    assert facts.facts["command"] == (
        "osim eval run data=rows rows.fantom=fantom.jsonl out client.judge.base_url=http://host:1/v1 runs/b/hf"
    )
    assert (facts.facts["input model"], facts.facts["input judge"]) == ("model 0a1b", "m at https://host/v1")


def test_a_report_says_that_a_manifest_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"command": 7}')
    facts = provenance([tmp_path])
    assert isinstance(facts, Facts)
    assert facts.facts["manifest"].startswith("cannot be read: TypeError")
