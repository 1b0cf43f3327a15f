"""The ledger: exact, exactly once, crash-safe, one writer."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from envs.engine import Sampling
from envs.ledger import LEDGER_FILE, Consumed, EpisodeKey, Ledger, LedgerNotStarted, LedgerReader
from envs.ledger.export import export_parquet
from envs.play import episode_seed, play
from envs.players.engine import EnginePlayer
from envs.types import Episode, JudgeCall, Score
from tests.envs.table import Dialogue, SeededEngine, byte_renderer, row

RENDERER = byte_renderer()
CALL = JudgeCall("judge", "m", {"q": 1}, '{"score": 1}', None, 0.125, 0.5, 10, 3)


def played(key: EpisodeKey) -> Episode:
    player = EnginePlayer(SeededEngine(RENDERER), RENDERER, Sampling(max_tokens=12))
    seed = episode_seed(0, key.step, row(key.prompt_id), key.sample)
    options = {"seed": seed, "learnable": ["a"], "feedback_text": {"a": "Try again."}, "want_feedback": True}
    return asyncio.run(play(Dialogue(), row(key.prompt_id), {"a": player, "b": player}, **options))


KEYS = [EpisodeKey("rollout", step, ident, sample) for step in (1, 2) for ident in ("p", "q") for sample in (0, 1)]
EPISODES = {key: played(key) for key in KEYS}


def test_episodes_come_back_equal_in_order_and_by_step(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for key in reversed(KEYS):
            ledger.put_episode(key, EPISODES[key])
        assert [r.key for r in ledger.episodes()] == KEYS
        assert all(r.episode == EPISODES[r.key] for r in ledger.episodes())
        assert ledger.keys(step=2) == KEYS[4:] and ledger.keys(phase="eval") == []
    with LedgerReader(tmp_path) as reader:
        assert reader.episode(KEYS[3]).episode == EPISODES[KEYS[3]]
        assert reader.outcome_counts(step=1) == {"scored": 8}
        reader.verify()
        with pytest.raises(UsageError, match="no episode"):
            reader.episode(EpisodeKey("eval", 0, "p", 0))


def test_an_episode_is_recorded_once_and_another_under_its_key_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for _ in range(2):
            ledger.put_episode(KEYS[0], EPISODES[KEYS[0]])
        assert ledger.keys() == KEYS[:1]
    with pytest.raises(DataError, match="another episode"), Ledger(tmp_path) as ledger:
        ledger.put_episode(KEYS[0], EPISODES[KEYS[1]])
        ledger.flush()
    with LedgerReader(tmp_path) as reader:
        assert reader.episode(KEYS[0]).episode == EPISODES[KEYS[0]]


def test_consumption_is_exact_and_rewinds_to_a_checkpoint(tmp_path: Path) -> None:
    uses = [
        Consumed(step, key, "a", "plain", "policy_gradient", 1 / 3, (0.1, 1e-300, 2 / 3))
        for step, key in ((1, KEYS[0]), (2, KEYS[4]), (3, KEYS[5]))
    ]
    with Ledger(tmp_path) as ledger:
        for key in KEYS:
            ledger.put_episode(key, EPISODES[key])
        ledger.put_consumed(uses)
        ledger.put_consumed(uses)
        assert ledger.consumed() == uses and ledger.consumed(step=2) == uses[1:2]
        ledger.rewind(1)
        assert ledger.consumed() == uses[:1] and ledger.keys() == KEYS
        ledger.put_consumed([Consumed(2, KEYS[4], "a", "plain", "policy_gradient", 0.5)])
        assert ledger.consumed(step=2)[0].advantage == 0.5


def test_consuming_what_was_never_recorded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put the episode first"), Ledger(tmp_path) as ledger:
        ledger.put_consumed([Consumed(1, KEYS[0], "a", "plain", "policy_gradient", 1.0)])
        ledger.flush()


def test_costs_are_summed_by_role_and_model(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.put_call(CALL)
        ledger.put_call(CALL)
        (cost,) = ledger.costs()
    assert (cost.calls, cost.cost_usd, cost.prompt_tokens, cost.failed) == (2, 0.25, 20, 0)


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.put_episode(KEYS[0], EPISODES[KEYS[0]])
        ledger.flush()
        with pytest.raises(UsageError, match="another process"):
            Ledger(tmp_path)
        with LedgerReader(tmp_path) as reader:
            assert reader.keys() == KEYS[:1]
    with Ledger(tmp_path) as ledger:
        assert ledger.keys() == KEYS[:1]


@pytest.fixture(scope="module")
def unclean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger as a killed process leaves it: main file and write-ahead log, eight commits."""
    live, copy = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("copy")
    with Ledger(live) as ledger:
        for key in KEYS:
            ledger.put_episode(key, EPISODES[key])
            ledger.flush()
        for name in (LEDGER_FILE, f"{LEDGER_FILE}-wal"):
            shutil.copy(live / name, copy / name)
    return copy


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_log_torn_at_any_byte_keeps_whole_episodes_in_order(
    unclean: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    torn = tmp_path_factory.mktemp("torn")
    shutil.copytree(unclean, torn, dirs_exist_ok=True)
    log = torn / f"{LEDGER_FILE}-wal"
    with log.open("r+b") as f:
        f.truncate(int(share * log.stat().st_size))
    with Ledger(torn) as ledger:
        kept = list(ledger.episodes())
        assert [r.key for r in kept] == KEYS[: len(kept)]
        assert all(r.episode == EPISODES[r.key] for r in kept)
        for key in KEYS:
            ledger.put_episode(key, EPISODES[key])
        assert ledger.keys() == KEYS


def test_damage_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match="not a readable ledger"):
        Ledger(tmp_path)
    with pytest.raises(UsageError, match="no ledger here"):
        LedgerReader(tmp_path / "empty")


def test_a_changed_blob_is_noticed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.put_episode(KEYS[0], EPISODES[KEYS[0]])
    db = sqlite3.connect(tmp_path / LEDGER_FILE)
    first, second = (name for (name,) in db.execute("SELECT hash FROM blobs LIMIT 2"))
    db.execute("UPDATE blobs SET data=(SELECT data FROM blobs WHERE hash=?) WHERE hash=?", (first, second))
    db.commit()
    db.close()
    with LedgerReader(tmp_path) as reader, pytest.raises(DataError, match="its own content"):
        reader.verify()


def test_parquet_files_hold_the_tokens_and_scores_exactly(tmp_path: Path) -> None:
    use = Consumed(1, KEYS[0], "a", "plain", "policy_gradient", 1 / 3, (0.1, 0.2))
    with Ledger(tmp_path / "ledger") as ledger:
        for key in KEYS:
            ledger.put_episode(key, replace(EPISODES[key], judge_calls=(CALL,)))
        ledger.put_consumed([use])
        ledger.put_call(CALL)
        out = export_parquet(ledger, tmp_path / "parquet")
    seats = pq.read_table(out / "seats.parquet").to_pylist()
    assert len(seats) == 2 * len(KEYS)
    for seat in seats:
        episode = EPISODES[EpisodeKey(seat["phase"], seat["step"], seat["prompt_id"], seat["sample"])]
        trace, outcome = episode.traces[seat["seat"]], episode.outcomes[seat["seat"]]
        assert (tuple(seat["ids"]), tuple(seat["logprobs"])) == (trace.ids, trace.logprobs)
        assert isinstance(outcome, Score) and seat["score"] == outcome.value
    assert pq.read_table(out / "consumed.parquet").to_pylist()[0]["weights"] == [0.1, 0.2]
    assert pq.read_table(out / "episodes.parquet").num_rows == len(KEYS)
    calls = pq.read_table(out / "calls.parquet").to_pylist()
    # One for each episode, and one that belongs to none.
    assert [call["prompt_id"] is None for call in calls] == [False] * len(KEYS) + [True]
    assert {(call["prompt_tokens"], call["completion_tokens"], call["cached"]) for call in calls} == {(10, 3, False)}


def test_a_reader_before_the_writers_tables_is_told_that_nothing_has_started(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).touch()
    with pytest.raises(LedgerNotStarted, match="not started yet"):
        LedgerReader(tmp_path)
    with Ledger(tmp_path):
        assert LedgerReader(tmp_path).keys() == []


def test_what_the_writer_cannot_encode_is_raised_at_once_and_again_at_close(tmp_path: Path) -> None:
    broken = replace(EPISODES[KEYS[0]], outcomes={"a": None})  # type: ignore[dict-item]
    ledger = Ledger(tmp_path)
    ledger.put_episode(KEYS[0], broken)
    with pytest.raises(AttributeError):
        ledger.flush(timeout_s=5)
    with pytest.raises(AttributeError):
        ledger.close()
    with LedgerReader(tmp_path) as reader:
        assert reader.keys() == []


def test_a_changed_outcome_is_noticed_when_its_episode_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.put_episode(KEYS[0], EPISODES[KEYS[0]])
    db = sqlite3.connect(tmp_path / LEDGER_FILE)
    db.execute("UPDATE seats SET outcome=replace(outcome, 'score', 'scorn')")
    db.commit()
    db.close()
    with LedgerReader(tmp_path) as reader, pytest.raises(DataError, match="not what was written"):
        list(reader.episodes())


def test_a_damaged_page_is_refused_before_anything_is_added(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for key in KEYS:
            ledger.put_episode(key, EPISODES[key])
    path = tmp_path / LEDGER_FILE
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="restore the ledger"):
        Ledger(tmp_path)
    assert path.read_bytes() == bytes(damaged)


def test_a_closed_ledger_is_one_file(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for key in KEYS:
            ledger.put_episode(key, EPISODES[key])
    (alone := tmp_path / "alone").mkdir()
    shutil.copy(tmp_path / LEDGER_FILE, alone)
    with LedgerReader(alone) as reader:
        assert reader.keys() == KEYS
