"""TwinVoice: the authors' three formats, their two denominators, and what their rule pays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import UsageError
from envs import registry
from envs.check import check
from envs.registry import with_data
from envs.tasks.twinvoice.author import both_denominators, parse_choice, parse_comment
from envs.tasks.twinvoice.task import accuracies
from envs.types import Row
from tests.envs.tasks.published import as_jsonl, episode_of, score

SOCIAL = {
    "user_id": "7",
    "anchor_post": " Rain again. ",
    "choices": ["w", "x", "y", "z"],
    "answer_idx": 3,
    "history": [f"post {i}" for i in range(40)],
}
PERSONAL = {
    "user_id": "8",
    "context": "See you?",
    "choices": ["w", "x", "y", "z"],
    "answer_idx": 0,
    "history": ["hm"],
}
NARRATIVE = {
    "chunk_id": "00009",
    "speaker": "Elf",
    "speaker_match_key": "Elf Swan",
    "utterance": "Why?",
    "context": "They speak of the wind.",
    "mcq": {"options": {"A": "No.", "B": "Why?", "C": "So?", "D": "Yes."}, "answer": "B"},
    "source_novel": "Invented",
}
CAST = {
    "characterList": {
        "CHAR_1": {
            "NameCanonical": "Elf Swan",
            "NameVariants": ["Elf", "Miss Swan"],
            "Personality Traits": ["curious"],
            "Additional Details": {"Home": "vicarage"},
            "UtteranceHistory": [
                {"chunk_id": "00010", "utterance": "later", "context": ""},
                {"chunk_id": "00002", "utterance": "second", "context": ""},
                {"chunk_id": "00001", "utterance": "first", "context": ""},
            ],
        }
    }
}


def rows_of(path: Path) -> list[Row]:
    return sorted(with_data(registry.get("twinvoice"), path).rows("test", None, 0), key=lambda row: row.id)


def test_the_authors_three_dimensions_load(tmp_path: Path) -> None:
    social, personal = rows_of(as_jsonl(tmp_path / "rows.jsonl", [SOCIAL, PERSONAL]))
    assert [r.data["dimension"] for r in (social, personal)] == ["1", "2"]
    assert social.data["history"] == [f"post {i}" for i in range(10, 40)] and social.data["answer"] == "z"
    assert personal.data["anchor"] == "See you?" and personal.cluster == "8"


def test_characters_of_novels_bring_persona_and_the_lines_before_the_scene(tmp_path: Path) -> None:
    choices = as_jsonl(tmp_path / "choices.jsonl", [NARRATIVE])
    with pytest.raises(UsageError, match=r"profiles\.jsonl"):
        rows_of(choices)
    (tmp_path / "profiles.jsonl").write_text(json.dumps(CAST, indent=1))
    (row,) = rows_of(choices)
    assert row.data["history"] == ["first", "second"]
    assert row.data["persona"] == "Personality Traits: curious\nAdditional Details: Home: vicarage"
    assert rows_of(tmp_path) == [row]
    spec = with_data(registry.get("twinvoice"), choices)
    assert check(spec) == []
    system, user = episode_of(spec, row, "").views["reader"][:2]
    assert "Elf Swan, a character" in system.content and "later" not in system.content
    assert "They speak of the wind." in user.content


@pytest.mark.parametrize(
    ("asked", "unreadable", "over_readable", "over_all"),
    [(2000, 158, 0.5385, 0.4960), (2000, 3, 0.4256, 0.4250), (2000, 0, 0.4690, 0.4690)],
)
def test_both_denominators_give_the_authors_published_pairs(
    asked: int, unreadable: int, over_readable: float, over_all: float
) -> None:
    right = round(over_all * asked)
    answers: list[bool | None] = [True] * right + [False] * (asked - right - unreadable) + [None] * unreadable
    found = both_denominators(answers)
    assert found["accuracy over readable answers"] == pytest.approx(over_readable, abs=1e-4)
    assert found["accuracy over all answers"] == pytest.approx(over_all, abs=1e-4)


def test_abstaining_pays_under_the_authors_denominator_and_costs_under_strict(tmp_path: Path) -> None:
    spec = with_data(registry.get("twinvoice"), as_jsonl(tmp_path / "rows.jsonl", [SOCIAL, PERSONAL]))
    social, personal = rows_of(tmp_path / "rows.jsonl")
    for profile in ("author", "strict"):
        episodes = [
            episode_of(spec, social, "<answer>D</answer>", profile),
            episode_of(spec, personal, "I'd rather not.", profile),
        ]
        assert accuracies(episodes) == {"accuracy over all answers": 0.5, "accuracy over readable answers": 1.0}
    assert score(spec, personal, "I'd rather not.").value == 0.0


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ('{"choice": "A"} {"choice": "B"}', "A"),
        ('{"choice": " A"}', None),  # JSON that parses is not searched again
        ('"choice": D', "D"),
        ('{"choice": 3, "also choice": "B"}', "B"),
        ("<answer>C</answer>", None),
    ],
)
def test_choices_are_read_as_the_authors_read_them(reply: str, letter: str | None) -> None:
    assert parse_choice(reply) == letter


def test_social_comments_are_read_from_the_first_object() -> None:
    reply: Any = '```json\n{"predicted_comment": "b ", "reasoning": "I {always} say so"}\n```'
    assert parse_comment(reply) is None  # the authors' pattern ends at the first brace, and that text is no JSON
    assert parse_comment('Sure: {"predicted_comment": "b ", "reasoning": "mine"} {"predicted_comment": "C"}') == "B"
    assert parse_comment("B") is None
