"""Generated ParaToMi-style stories: true answers, split parts, several phrasings, no download."""

from __future__ import annotations

from collections import Counter

from envs import registry
from envs.tasks.hitom.world import Enter, Exit, Move, Place, Story
from envs.tasks.paratomi.generator import Plot, generated_rows, make_plot, questions, told
from envs.types import Row, Score
from tests.envs.tasks.test_question_tasks import score


def rows(part: str = "train", stories: int = 200, seed: int = 0) -> list[Row]:
    return list(generated_rows("paratomi", part, stories, seed))  # type: ignore[arg-type]


def plot(*events: object) -> Plot:
    start = (Enter(("Anna",), "hall"), Enter(("Ben",), "hall"), Place("pear", "box"))
    story = Story((*start, *events))  # type: ignore[arg-type]
    return Plot("Anna", "Ben", "pear", "hall", ("box", "jar"), story, ())


def answers(found: Plot) -> dict[str, str]:
    return {kind.removesuffix("_tom").removesuffix("_no"): answer for kind, _, answer in questions(found)}


def test_who_left_before_the_move_believes_the_old_place() -> None:
    found = answers(plot(Exit("Ben", "hall"), Move("Anna", "pear", "jar")))
    assert found == {
        "reality": "jar",
        "memory": "box",
        "first_order_0": "jar",
        "second_order_0": "box",
        "first_order_1": "box",
        "second_order_1": "box",
    }


def test_who_comes_back_knows_and_only_who_is_there_knows_that() -> None:
    seen = plot(Exit("Ben", "hall"), Move("Anna", "pear", "jar"), Enter(("Ben",), "hall"))
    assert set(answers(seen).values()) == {"jar", "box"} and answers(seen)["second_order_0"] == "jar"
    unseen = plot(Exit("Ben", "hall"), Move("Anna", "pear", "jar"), Exit("Anna", "hall"), Enter(("Ben",), "hall"))
    assert answers(unseen)["first_order_1"] == "jar" and answers(unseen)["second_order_0"] == "box"


def test_train_and_test_share_no_story_whatever_the_seeds() -> None:
    clusters = {part: {r.cluster for seed in (0, 1) for r in rows(part, 150, seed)} for part in ("train", "heldout")}
    assert not clusters["train"] & clusters["heldout"]
    assert len({r.cluster for r in rows("heldout", 150, 3)}) == 150


def test_all_ten_types_of_question_occur_and_no_answer_is_favoured() -> None:
    made = rows(stories=400)
    assert len(Counter(r.data["type"] for r in made)) == 10
    first = sum(r.data["choices"][0] == r.data["answer"] for r in made) / len(made)
    assert 0.4 < first < 0.6
    assert all(len(set(r.data["choices"])) == 2 for r in made)


def test_equal_seeds_give_equal_rows_and_one_plot_has_many_phrasings() -> None:
    from random import Random

    assert rows(seed=1) == rows(seed=1) != rows(seed=2)
    found = make_plot(Random(1))
    assert len({told(found, Random(i)) for i in range(20)}) > 10
    assert all(word in told(found, Random(3)) for word in (found.mover, found.other, found.thing))


def test_the_task_needs_no_data_and_pays_only_the_right_place() -> None:
    spec = registry.get("paratomi")
    for row in spec.rows("train", 30, 0):
        assert score(spec, row, f"<answer>{row.data['answer']}</answer>") == Score(1.0)
        (wrong,) = set(row.data["choices"]) - {row.data["answer"]}
        assert score(spec, row, f"<answer>{wrong}</answer>") == Score(0.0)
