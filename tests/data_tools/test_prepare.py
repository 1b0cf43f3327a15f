"""Preparation as a whole: the same bytes however it ran, nothing lost, nothing spoiled."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from common.config import dump_yaml
from common.errors import DataError, GateError, Interrupted, UsageError
from common.files import write_text
from common.run_folder import RunFolder
from data_tools import pool as pool_module
from data_tools import prepare as prepare_module
from data_tools import publish, units
from data_tools.indexed import add_suffix
from data_tools.merge import merge
from data_tools.packed import PackedShard
from data_tools.prepare import prepare
from data_tools.renderer import Renderer
from data_tools.routing import Routing, apply_rule
from data_tools.rows import read_conversations
from data_tools.shards import Shard
from data_tools.verify import verify
from tests.data_tools.conftest import make_rows, shard_bytes


def test_every_row_becomes_the_renderers_tokens_in_order(make_config, tokenizer_dir, small_units):
    config = make_config(make_rows(200) + make_rows(50, 1, source="wildchat"), sequence_length=None)
    manifest = prepare(config)
    shard, renderer = Shard.open(config.output), Renderer.load(tokenizer_dir)
    conversations = list(read_conversations([config.output.parent.parent / "corpus.jsonl"]))
    assert len(shard) == len(conversations) == manifest.documents == 250
    for i, conversation in enumerate(conversations):
        expected = renderer.render(apply_rule(Routing().rule(conversation.source), conversation.messages))
        tokens, train, roles = shard.document(i)
        assert tokens.tolist() == expected.ids
        assert train.tolist() == expected.train
        assert roles.tolist() == expected.roles
        assert shard.source(i) == conversation.source
    assert manifest.sources == ("tom_hitom", "wildchat")
    assert manifest.tokenizer.backend == "fastokens" and manifest.tokenizer.checked_strings > 300
    verify(config.output, tokenizer=tokenizer_dir)


def test_running_again_does_nothing_and_another_configuration_is_refused(make_config, monkeypatch):
    config = make_config(make_rows(20))
    manifest = prepare(config)
    before = shard_bytes(config.output)
    monkeypatch.setattr(prepare_module, "process_unit", None)
    assert prepare(config) == manifest
    monkeypatch.undo()
    with pytest.raises(UsageError, match="another shard is there"):
        prepare(config.model_copy(update={"seed": 1}))
    assert shard_bytes(config.output) == before
    assert prepare(config.model_copy(update={"seed": 1, "overwrite": True})).pack.seed == 1
    changed = make_config(make_rows(21))
    with pytest.raises(UsageError, match="another shard is there"):
        prepare(changed)


def test_an_interrupted_run_keeps_finished_units_and_gives_the_same_bytes(
    make_config, small_units, monkeypatch, tmp_path
):
    rows = make_rows(200)
    whole = make_config(rows, output=tmp_path / "whole" / "shard")
    prepare(whole)
    config = make_config()
    real, done = prepare_module.process_unit, []

    def stop_after_two(job, unit):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(unit.index)
        return real(job, unit)

    monkeypatch.setattr(prepare_module, "process_unit", stop_after_two)
    with pytest.raises(Interrupted):
        prepare(config)
    assert not add_suffix(config.output, ".idx").exists()
    # A unit whose bytes were damaged since is done again; the other is kept.
    damaged = units.unit_directory(add_suffix(config.output, ".work"), 1) / "tokens.bin"
    damaged.write_bytes(damaged.read_bytes()[:-2] + b"xx")
    monkeypatch.setattr(prepare_module, "process_unit", lambda job, unit: done.append(unit.index) or real(job, unit))
    prepare(config)
    assert done[:2] == [0, 1] and done[2:] == [1, *range(2, max(done) + 1)]
    assert shard_bytes(config.output) == shard_bytes(whole.output)
    assert not add_suffix(config.output, ".work").exists()


def test_an_unfinished_run_of_another_configuration_is_refused(make_config, small_units, monkeypatch):
    config = make_config(make_rows(50))
    monkeypatch.setattr(prepare_module, "join", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare(config)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="unfinished run with other"):
        prepare(config.model_copy(update={"seed": 5}))
    prepare(config)


def test_shard_jobs_merged_in_order_give_the_bytes_of_one_job(make_config, small_units, tmp_path):
    whole = make_config(make_rows(200), output=tmp_path / "whole" / "shard")
    manifest = prepare(whole)
    prefixes = []
    for job in range(3):
        config = make_config(output=tmp_path / f"job{job}" / "shard", shard_job=job, shard_jobs=3)
        prepare(config)
        prefixes.append(config.output)
    merged = merge(prefixes, tmp_path / "merged" / "shard")
    assert shard_bytes(tmp_path / "merged" / "shard") == shard_bytes(whole.output)
    assert merged.counts == manifest.counts and merged.inputs == manifest.inputs
    verify(tmp_path / "merged" / "shard")
    with pytest.raises(UsageError, match="there is a shard already"):
        merge(prefixes, tmp_path / "merged" / "shard")


def test_jobs_without_input_are_whole_and_merge_passes_over_them(make_config, tmp_path):
    config = make_config(make_rows(20), shard_jobs=3)
    prefixes = [tmp_path / f"job{job}" for job in range(3)]
    made = [prepare(config.model_copy(update={"output": p, "shard_job": j})) for j, p in enumerate(prefixes)]
    assert sorted(m.documents for m in made) == [0, 0, 20]
    whole = prepare(config.model_copy(update={"output": tmp_path / "whole", "shard_jobs": 1}))
    merged = merge(prefixes, tmp_path / "merged")
    assert merged.files == whole.files and merged.counts == whole.counts
    with pytest.raises(UsageError, match="no document"):
        merge([p for p, m in zip(prefixes, made, strict=True) if not m.documents], tmp_path / "none")


def test_ratios_draw_rows_the_same_way_every_time(make_config, tmp_path):
    rows = make_rows(400)
    half = make_config(rows, inputs=[{"glob": str(tmp_path / "corpus.jsonl"), "ratio": 0.5}])
    first = prepare(half)
    assert 150 < first.counts["tom_hitom"].rows < 250
    assert prepare(half.model_copy(update={"output": tmp_path / "b" / "s"})).files == first.files
    inputs = [{"glob": str(tmp_path / "corpus.jsonl"), "ratio": 2.5}]
    more = make_config(inputs=inputs, output=tmp_path / "c" / "s")
    assert prepare(more).counts["tom_hitom"].rows == 800 + first.counts["tom_hitom"].rows


def test_rows_without_a_source_take_the_inputs_and_unknown_sources_stop(make_config, tmp_path):
    rows = [{"messages": r["messages"]} for r in make_rows(5)]
    with pytest.raises(UsageError, match="no routing rule for data_source ''"):
        prepare(make_config(rows))
    given = [{"glob": str(tmp_path / "corpus.jsonl"), "source": "mine"}]
    manifest = prepare(make_config(rows, inputs=given, sources={"mine": {}}))
    assert manifest.sources == ("mine",)


def test_bad_rows_are_counted_when_allowed(make_config, tmp_path):
    config = make_config(make_rows(10), on_bad_row="skip")
    with (tmp_path / "corpus.jsonl").open("ab") as f:
        f.write(b'{"messages": []}\nnot json\n{"messages": [{"role": "user", "content": "\xff"}]}\n')
    manifest = prepare(config)
    assert manifest.documents == 10 and manifest.bad_rows == {"empty": 1, "json": 1, "utf8": 1}
    with pytest.raises(DataError, match="row 10 "):
        prepare(config.model_copy(update={"on_bad_row": "stop", "output": tmp_path / "b" / "s"}))
    assert not add_suffix(tmp_path / "b" / "s", ".idx").exists()


@pytest.mark.parametrize("policy", ["truncate", "split", "drop"])
def test_long_rows_are_counted_per_source_and_the_rest_is_untouched(make_config, policy):
    messages = [{"role": "system", "content": "who"}, {"role": "user", "content": "the garden " * 400}]
    long = {"data_source": "wildchat", "messages": messages}
    config = make_config([*make_rows(10, longest=8), long], on_long=policy, sequence_length=300)
    manifest = prepare(config)
    count = manifest.counts["wildchat"]
    assert count.rows == 1
    assert (count.truncated, count.split, count.dropped_long) == tuple(
        int(policy == p) for p in ("truncate", "split", "drop")
    )
    assert manifest.counts["tom_hitom"].documents == 10
    if policy == "split":
        assert count.trained_tokens == count.trained_content_tokens + 1 and count.documents > 1
    verify(config.output)


def test_a_mask_that_trains_nothing_or_everything_stops_the_run_unless_declared(make_config, tmp_path):
    nothing = [{"data_source": "chat", "messages": [{"role": "user", "content": "hi there"}]}] * 3
    everything = [{"data_source": "sotopia", "messages": [{"role": "assistant", "content": "hi there"}]}] * 3
    with pytest.raises(GateError) as error:
        prepare(make_config(nothing + everything + make_rows(3)))
    assert "chat: none of" in str(error.value) and "sotopia: all " in str(error.value)
    assert not add_suffix(make_config().output, ".idx").exists()
    rules = {"chat": {"allow_untrained": True}, "sotopia": {"allow_all_trained": True}}
    manifest = prepare(make_config(sources=rules))
    assert manifest.counts["chat"].dropped_untrained == 3 and manifest.counts["sotopia"].documents == 3


def test_the_end_of_document_token_is_added_and_not_trained(make_config, tokenizer):
    config = make_config(make_rows(5), append_end_of_document=True, sequence_length=None)
    prepare(config)
    shard = Shard.open(config.output)
    for i in range(len(shard)):
        tokens, train, _ = shard.document(i)
        assert tokens[-1] == tokenizer.token_to_id("<|endoftext|>") and not train[-1]


def test_a_full_disk_is_one_clear_error_and_leaves_the_earlier_shard(make_config, monkeypatch, tmp_path):
    config = make_config(make_rows(20))
    prepare(config)
    before = shard_bytes(config.output)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    changed = make_config(make_rows(30), overwrite=True)
    for module, name in ((units.UnitWriter, "close"), (publish, "write_index")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(UsageError, match="disk is full"):
                prepare(changed)
        assert shard_bytes(config.output) == before
        PackedShard.open(config.output)
    assert prepare(changed).documents == 30


PROGRAM = """
import sys
from pathlib import Path
from common.config import load
from common.errors import run_main
from data_tools import pool, prepare as m, units, worker
from data_tools.config import PrepareConfig
real = units.plan_units
m.plan_units = lambda files, size: real(files, 60_000)
if __name__ == "__main__":
    run_main(lambda: m.prepare(load(PrepareConfig, Path(sys.argv[1]))))
"""


def start(tmp_path, config):
    write_text(tmp_path / "config.yaml", dump_yaml(config))
    write_text(tmp_path / "program.py", PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "config.yaml")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def test_no_unit_is_lost_when_the_workers_die_between_two_submissions(make_config, small_units):
    config = make_config(make_rows(400), workers=2)
    killed = []

    def kill_once(done: int, total: int) -> None:
        workers = multiprocessing.active_children()
        if workers and not killed:
            killed.extend(workers)
            for process in workers:
                process.kill()
            for process in workers:
                process.join(10)
            time.sleep(0.5)  # the pool notices

    manifest = prepare(config, kill_once)
    assert killed and sum(count.rows for count in manifest.counts.values()) == 400


def test_a_suspicious_mask_stops_all_workers_before_their_units_are_discarded(make_config, small_units, monkeypatch):
    monkeypatch.setattr(prepare_module, "EARLY_CHECK_ROWS", 1)
    row = {"data_source": "sotopia", "messages": [{"role": "assistant", "content": "hi there " * 200}]}
    config = make_config([row] * 200, workers=2)
    with pytest.raises(GateError):
        prepare(config)
    assert not multiprocessing.active_children()
    assert not (add_suffix(config.output, ".work") / "units").exists()


def test_workers_that_outlive_a_killed_run_for_a_moment_hold_no_lock(make_config, tmp_path):
    config = make_config(make_rows(3000), workers=2)
    process = start(tmp_path, config)
    work = add_suffix(config.output, ".work")
    while not list(work.glob("units/0*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(60)
    assert RunFolder(work).owner() is None


KILLS = 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_20_random_moments_it_ends_with_the_bytes_of_the_uninterrupted_run(make_config, tmp_path):
    rows = make_rows(3000)
    whole = make_config(rows, output=tmp_path / "whole" / "shard")
    assert start(tmp_path, whole).wait(timeout=300) == 0
    rng = np.random.default_rng(int(time.time()))
    config = make_config()
    work = add_suffix(config.output, ".work")
    kills = 0
    while kills < KILLS:
        process = start(tmp_path, config)
        if kills % 4:
            # While units are made or joined: after the next one appears, plus a moment.
            wanted = min(len(list(work.glob("units/0*"))) + 1, 12)
            while process.poll() is None and len(list(work.glob("units/0*"))) < wanted:
                time.sleep(0.002)
            time.sleep(float(rng.random()) * 0.1)
        else:
            time.sleep(float(rng.random()) * 3)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait(timeout=60)
        if add_suffix(config.output, ".idx").exists():
            assert shard_bytes(config.output) == shard_bytes(whole.output)
            config = make_config(output=tmp_path / f"again{kills}" / "shard")
            work = add_suffix(config.output, ".work")
    config = config.model_copy(update={"workers": 2})
    assert start(tmp_path, config).wait(timeout=300) == 0
    assert shard_bytes(config.output) == shard_bytes(whole.output)
    assert not work.exists()


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_clear_error_and_leaves_no_half_shard(make_config, tmp_path):
    config = make_config(make_rows(3000))
    write_text(tmp_path / "config.yaml", dump_yaml(config))
    write_text(tmp_path / "program.py", PROGRAM)
    folder = config.output.parent
    folder.mkdir(parents=True)
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*mount, f"mount -t tmpfs none {folder}"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets no test mount a small disk")
    run = f"{sys.executable} {tmp_path}/program.py {tmp_path}/config.yaml"
    inside = f"mount -t tmpfs -o size=64k none {folder} && {run}; code=$?; ls -A {folder}; exit $code"
    done = subprocess.run([*mount, inside], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "the disk is full" in done.stderr and "free space" in done.stderr
    assert "Traceback" not in done.stderr and "shard.idx" not in done.stdout


@pytest.mark.slow
def test_a_worker_that_keeps_dying_fails_the_run_and_a_worker_that_died_once_does_not(make_config, tmp_path):
    config = make_config(make_rows(400), workers=2)
    dying = PROGRAM.replace(
        "if __name__",
        """
import os
def process(job, unit):
    marker = job.work / f"died{unit.index}"
    if unit.index == 1 and (os.environ["ALWAYS"] == "1" or not marker.exists()):
        marker.touch()
        os._exit(9)
    return worker.process_unit(job, unit)
pool.process_unit = process
if __name__""",
    )
    write_text(tmp_path / "dying.py", dying)
    write_text(tmp_path / "config.yaml", dump_yaml(config))
    for always, code in (("1", 2), ("0", 0)):
        done = subprocess.run(
            [sys.executable, str(tmp_path / "dying.py"), str(tmp_path / "config.yaml")],
            env={**os.environ, "ALWAYS": always, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        if code:
            assert "a worker process died twice" in done.stderr
    verify(config.output)


@pytest.mark.parametrize("suffix", [".bin", ".mask.bin", ".idx", ".pack"])
def test_a_finished_shard_that_was_damaged_is_made_again(make_config, suffix):
    config = make_config(make_rows(60))
    prepare(config)
    whole, path = shard_bytes(config.output), add_suffix(config.output, suffix)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(bytes(damaged))
    prepare(config)
    assert shard_bytes(config.output) == whole


def test_a_manifest_that_was_changed_is_refused_with_what_mends_it(make_config):
    config = make_config(make_rows(60))
    manifest = prepare(config)
    path = add_suffix(config.output, ".manifest.json")
    path.write_text(path.read_text().replace(f'"documents": {manifest.documents}', '"documents": 7'))
    with pytest.raises(DataError, match=r"(?s)not what was written.*overwrite=true"):
        prepare(config)
    assert prepare(config.model_copy(update={"overwrite": True})) == manifest


@pytest.mark.parametrize("name", ["plan.json", "units/00001/record.json"])
def test_a_damaged_record_of_an_interrupted_run_costs_its_unit_only(make_config, small_units, name):
    config = make_config(make_rows(400))
    whole = make_config(output=config.output.with_name("whole"))
    prepare(whole)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        prepare(config, stop)
    (add_suffix(config.output, ".work") / name).write_bytes(b'{"key": "x')
    if name == "plan.json":
        with pytest.raises(UsageError, match="overwrite: true"):
            prepare(config)
        config = config.model_copy(update={"overwrite": True})
    prepare(config)
    assert shard_bytes(config.output) == shard_bytes(whole.output)


def test_a_frozen_worker_with_nothing_to_do_keeps_nobody_waiting():
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    os.kill(pool.submit(os.getpid).result(60), signal.SIGSTOP)
    pool_module._end(pool, others, 0.1)
    assert [p for p in multiprocessing.active_children() if p not in others] == []
