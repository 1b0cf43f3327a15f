"""Fixtures that several folders share. What only one folder needs is in its own conftest."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from data_tools.renderer import Renderer
from data_tools.tokenizer import save_tokenizer, train_tokenizer
from envs.tasks.corpus import GeneratedCorpusConfig, write_generated_corpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an environment that is not here. The cluster's tests come first, then files with slow ones.

    Otherwise the last of them would keep one process busy when the others have nothing left.
    """
    _skip_without_sglang([item for item in items if item.get_closest_marker("sglang")])
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.get_closest_marker("slurm"), item.path not in slow))


class FileScheduling(LoadFileScheduling):
    """Where several processes test, a file is one's: its fixtures are made once. So is the cluster of tests/slurm."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "tests/slurm" if file.startswith("tests/slurm/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileScheduling | None:
    """For `--dist loadfile`, which `make test` asks for; None leaves any other to xdist."""
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def _skip_without_sglang(marked: list[pytest.Item]) -> None:
    if not marked:
        return
    from rl.rollout.server import default_python, is_built  # imports torch

    if not is_built(default_python()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no SGLang environment: run `make sglang`"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Golden vectors and benchmark samples that lie beside the repository, where they do."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no golden vectors or benchmark samples: {folder} is not here")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and heldout.jsonl of the generated tasks, about 0.2 MB."""
    folder = tmp_path_factory.mktemp("corpus")
    config = GeneratedCorpusConfig(stories=80, dialogues=20, heldout_stories=10, heldout_dialogues=5)
    write_generated_corpus(folder, config)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face tokenizer folder: byte-level BPE of 320 entries with ChatML specials."""
    folder = tmp_path_factory.mktemp("tokenizer") / "hf"
    save_tokenizer(train_tokenizer((tiny_corpus / "train.jsonl").read_text().splitlines(), 320), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_renderer(tiny_tokenizer: Path) -> Renderer:
    """The renderer of `tiny_tokenizer`."""
    return Renderer.load(tiny_tokenizer)
