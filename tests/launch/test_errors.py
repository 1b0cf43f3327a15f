"""What a user does wrong: one clear error that names the fix, exit 2, and nothing is damaged or left behind."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from common.files import hash_file
from data_tools.tokenizer import save_tokenizer, train_tokenizer
from launch import cli
from launch.kinds import shipped

MIDTRAIN = shipped("quickstart/midtrain.yaml")
PREPARE = shipped("quickstart/prepare.yaml")


def fail(capsys: pytest.CaptureFixture[str], *arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the console script's own function on a command line that must exit 2; the text on stderr."""
    monkeypatch.setattr("sys.argv", ["osim", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2, err
    assert "Traceback" not in err and err.count("error: ") == 1 and "fix: " in err
    return err


@pytest.fixture(scope="session")
def prepared(tiny_corpus: Path, tiny_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PREFIX of a packed shard of the tiny corpus."""
    prefix = tmp_path_factory.mktemp("shards") / "train"
    with pytest.raises(SystemExit) as ended:
        cli.run(prepare_line(tiny_corpus / "train.jsonl", tiny_tokenizer, prefix))
    assert ended.value.code == 0
    return prefix


@pytest.fixture
def shard(prepared: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(prepared.parent, tmp_path / "shards")
    return tmp_path / "shards" / "train"


def prepare_line(corpus: Path, tokenizer: Path, output: Path) -> list[str]:
    inputs = f"inputs=[{{glob: {corpus}}}]"
    return ["data", "prepare", "-r", str(PREPARE), inputs, f"tokenizer={tokenizer}", f"output={output}"]


def midtrain_line(shard: Path, tokenizer: Path, out: Path, *overrides: str) -> list[str]:
    data = f"data.sources=[{{name: a, prefixes: [{shard}]}}]"
    options = ["-r", str(MIDTRAIN), "--out", str(out), "--ranks", "2"]
    return ["midtrain", *options, f"tokenizer={tokenizer}", data, *overrides]


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_unknown_config_keys_name_the_nearest_and_all_violations_come_at_once(
    shard: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shard.parent / "run"
    line = midtrain_line(shard, tiny_tokenizer, out, "optimizer.learning_rat=1", "global_batc=3", "steps=-1")
    text = fail(capsys, *line, monkeypatch=monkeypatch)
    assert "3 problems" in text
    assert "global_batc: unknown key; did you mean 'global_batch'?" in text
    assert "optimizer.learning_rat: unknown key" in text
    assert "steps: Input should be greater than or equal to 0" in text
    assert not out.exists()


def test_missing_files_are_named(
    tiny_tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = fail(capsys, "midtrain", "-r", str(tmp_path / "none.yaml"), monkeypatch=monkeypatch)
    assert "none.yaml" in text and "no such recipe" in text
    line = prepare_line(tmp_path / "none.jsonl", tiny_tokenizer, tmp_path / "shard")
    assert "none.jsonl" in fail(capsys, *line, monkeypatch=monkeypatch)
    line = midtrain_line(tmp_path / "none", tiny_tokenizer, tmp_path / "run")
    text = fail(capsys, *line, monkeypatch=monkeypatch)
    assert str(tmp_path / "none") in text and "osim data prepare" in text
    rl = ["rl", "-r", str(shipped("quickstart/grpo.yaml")), f"model={tmp_path}", "--out", str(tmp_path / "run")]
    assert str(tmp_path) in fail(capsys, *rl, monkeypatch=monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_taken_port_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        text = fail(capsys, "view", str(tmp_path), "--port", port, monkeypatch=monkeypatch)
    assert port in text and "another port" in text


def test_corrupt_shard_is_refused_whatever_is_damaged(
    shard: Path, tiny_tokenizer: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shard.with_suffix(".bin").open("r+b") as f:
        f.seek(1000)
        byte = f.read(1)
        f.seek(1000)
        f.write(bytes([byte[0] ^ 1]))
    before = contents(shard.parent)
    text = fail(capsys, "data", "verify", str(shard), monkeypatch=monkeypatch)
    assert ".bin" in text and "osim data prepare" in text
    out = shard.parent.parent / "run"
    for suffix in (".bin", ".idx", ".pack", ".mask.bin"):
        path = shard.with_name(shard.name + suffix)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        text = fail(capsys, *midtrain_line(shard, tiny_tokenizer, out), monkeypatch=monkeypatch)
        assert "train" in text
        path.write_bytes(whole)
    assert contents(shard.parent) == before
    assert not out.exists()


def test_tokenizer_mismatch_names_both_tokenizers(
    shard: Path,
    tiny_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = tmp_path / "other"
    save_tokenizer(train_tokenizer(["some other text", "of other words"], 270), other)
    before = contents(shard.parent)
    text = fail(capsys, *midtrain_line(shard, other, tmp_path / "run"), monkeypatch=monkeypatch)
    assert str(other) in text and str(tiny_tokenizer) in text
    line = midtrain_line(shard, tiny_tokenizer, tmp_path / "run", "architecture.vocab_size=300")
    assert "architecture.vocab_size" in fail(capsys, *line, monkeypatch=monkeypatch)
    assert contents(shard.parent) == before
    assert not (tmp_path / "run").exists()


def test_illegal_layout_is_refused_before_processes_start(
    shard: Path,
    tiny_tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = midtrain_line(shard, tiny_tokenizer, tmp_path / "run", "parallel.tensor=4")
    text = fail(capsys, *line, monkeypatch=monkeypatch)
    assert "num_key_value_heads 2 is not a multiple of tensor = 4" in text
    assert "2 ranks do not split" in text
    assert not (tmp_path / "run").exists()
