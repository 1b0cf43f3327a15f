"""PREFIX.manifest.json: what a shard is made of and how to know that it still is."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.config import Config
from common.errors import data_errors
from common.files import read_sealed_json, write_sealed_json
from data_tools.config import MixtureConfig
from data_tools.indexed import add_suffix
from data_tools.units import SourceCount

FORMAT_VERSION = 1


class FileFacts(Config):
    """Size and content of a file."""

    size: int
    xxh3_128: str


class InputFacts(FileFacts):
    """An input file as it was read."""

    path: str
    ratio: float


class TokenizerFacts(Config):
    """The tokenizer that made the ids, and which library was trusted to run it."""

    folder: str
    vocab_size: int
    fingerprint: str
    """Renderer.fingerprint: tokenizer content, template and renderer version."""
    template: str
    end_id: int
    backend: str
    backend_version: str
    reference_version: str
    checked_strings: int
    mismatch: str | None = None
    """The text that made the fast library lose the start-up check."""
    units_redone: int = 0
    """Units where the fast library failed its recheck and the reference was used."""


class PackFacts(Config):
    """Packing of PREFIX.pack."""

    sequence_length: int
    bins: int
    documents: int
    fill: float
    """Tokens over capacity."""
    max_segments: int
    seed: int
    mixture: MixtureConfig | None = None
    """Null: every document once."""
    tokens: dict[str, int] = Field(default_factory=dict)
    """In the bins, by source."""


class Manifest(Config):
    """Everything about a shard that is not in its arrays."""

    format_version: int = FORMAT_VERSION
    command: tuple[str, ...]
    config: dict[str, object]
    """The PrepareConfig fields that the content depends on."""
    key: str
    """Hash of configuration, tokenizer and inputs: equal keys, equal content."""
    inputs: tuple[InputFacts, ...]
    tokenizer: TokenizerFacts
    sources: tuple[str, ...]
    """Names by code in PREFIX.sources.npy."""
    counts: dict[str, SourceCount]
    """By source."""
    bad_rows: dict[str, int]
    """Skipped rows by reason."""
    documents: int
    tokens: int
    trained_tokens: int
    longest: int
    """Tokens of the longest document."""
    pack: PackFacts | None
    files: dict[str, FileFacts]
    """By suffix of PREFIX, e.g. ".mask.bin"."""

    @classmethod
    def read(cls, prefix: Path) -> Manifest:
        """Read PREFIX.manifest.json. Raises DataError when it is missing or not of this format."""
        path = add_suffix(prefix, ".manifest.json")
        fix = "make the shard again: `osim data prepare` with overwrite=true"
        with data_errors(str(path), fix=fix, what="not a shard manifest"):
            return cls.model_validate(read_sealed_json(path, fix=fix))

    def write(self, prefix: Path, *, path: Path | None = None) -> None:
        """Write PREFIX.manifest.json atomically (or `path`, for a shard that is not visible yet)."""
        write_sealed_json(path or add_suffix(prefix, ".manifest.json"), self.model_dump(mode="json"))
