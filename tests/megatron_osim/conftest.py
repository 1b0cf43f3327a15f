"""Fixtures of this folder: one small corpus, and this process as a job of one rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from megatron_osim.config import ParallelConfig
from megatron_osim.runtime import Ranks, initialize, shutdown
from tests.megatron_osim.corpus import Corpus, make_corpus

SEQUENCE_LENGTH = 128


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), sequence_length=SEQUENCE_LENGTH)


@pytest.fixture(scope="package")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """This process as a job of one rank, for this folder: others make their own."""
    rendezvous = tmp_path_factory.mktemp("single") / "rendezvous"
    yield initialize(ParallelConfig(), rendezvous=rendezvous.as_uri())
    shutdown()
