"""Configuration of data preparation. No heavy import: the command line loads this at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.config import Config
from data_tools.routing import SourceRule


class InputConfig(Config):
    """One glob of corpus files."""

    glob: str
    """Files: .jsonl, .jsonl.gz, .jsonl.zst, .parquet."""
    ratio: float = Field(default=1.0, gt=0)
    """How often each row is used: 0.5 draws half of the rows, 2.5 all twice and half of them once more.
    Shares of tokens are set by `mixture`."""
    source: str | None = None
    """data_source of rows that name none."""


class MixtureConfig(Config):
    """Shares of the sources among the packed tokens. Tokens are made once; another mixture is another packing."""

    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    """Of every source (data_source), relative to each other; 0 leaves a source out."""
    tokens: int | None = Field(default=None, ge=1)
    """In all. Null: as many as there are in these shares without a document twice; more repeats documents."""

    @model_validator(mode="after")
    def _some_source_counts(self) -> MixtureConfig:
        if not any(self.weights.values()):
            raise ValueError("no source has a weight above 0")
        return self


RUN_FIELDS = {"output", "workers", "unit_timeout_s", "overwrite", "strict", "tokenizer"}
"""What says how a shard is made, not what is in it."""


class PrepareConfig(Config):
    """Corpora to one shard."""

    inputs: tuple[InputConfig, ...] = Field(min_length=1)
    """Corpus files and how often each row is used."""
    tokenizer: Path
    """A Hugging Face tokenizer folder."""
    output: Path
    """PREFIX of the files to write: PREFIX.bin, PREFIX.idx, PREFIX.mask.bin, ..."""
    template: Literal["chatml", "llama3"] | None = None
    """Chat template; by default the one whose special tokens the tokenizer has."""
    trained_roles: tuple[Literal["system", "user", "assistant", "tool"], ...] = ("assistant",)
    """Roles whose content and end token are trained."""
    sources: dict[str, SourceRule] = Field(default_factory=dict)
    """Rules of sources beside the built-in ones (or instead of them)."""
    strip_system: bool = False
    """Leave out the grounding: an ablation."""
    exclude: tuple[Path, ...] = ()
    """Removal lists (of `osim data decontaminate` or near-duplicate removal): rows to leave out."""
    append_end_of_document: bool = False
    """Add the end-of-text token after each document, for readers that do not isolate packed documents."""
    sequence_length: int | None = Field(default=None, ge=16)
    """Tokens per bin. Without it documents keep their length and no NAME.pack is written."""
    on_long: Literal["truncate", "split", "drop"] = "drop"
    """Rows longer than sequence_length."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that cannot be used: stop with file and row number, or leave it out and count it."""
    pack_window: int = Field(default=100_000, ge=1)
    """Documents that are packed together; what fits nowhere goes to the next window."""
    max_segments: int = Field(default=256, ge=1)
    """Documents per bin at most."""
    mixture: MixtureConfig | None = None
    """Pack the sources in given shares. Null: every document once."""
    seed: int = 0
    """Of packing and of ratio draws."""
    backend: Literal["auto", "fastokens", "hf"] = "auto"
    """Tokenizer library; auto takes the fast one if it passes the self-check."""
    strict: bool = False
    """Stop when the fast tokenizer differs from the reference, instead of falling back."""
    unit_mb: int = Field(default=64, ge=1)
    """Input per unit of work. Results do not depend on the number of workers, but row draws (ratio) do on this."""
    workers: int = Field(default=1, ge=1)
    """Processes. The output is the same for any number."""
    unit_timeout_s: float = Field(default=900.0, gt=0)
    """Longest time in which no worker finishes a unit; then all are replaced (with workers > 1)."""
    shard_job: int = Field(default=0, ge=0)
    """Which of `shard_jobs` independent jobs this is; their outputs are joined by `osim data merge`."""
    shard_jobs: int = Field(default=1, ge=1)
    """Into how many independent jobs the corpus is divided."""
    overwrite: bool = False
    """Replace an output that was made with another configuration."""

    @model_validator(mode="after")
    def _job_in_range(self) -> PrepareConfig:
        if self.shard_job >= self.shard_jobs:
            raise ValueError(f"shard_job {self.shard_job} is not below shard_jobs {self.shard_jobs}")
        return self

    @model_validator(mode="after")
    def _mixture_is_packed(self) -> PrepareConfig:
        if self.mixture is not None and self.sequence_length is None:
            raise ValueError("a mixture is made by packing: give sequence_length")
        return self

    def content_fields(self) -> dict[str, object]:
        """The fields that the output depends on."""
        return self.model_dump(mode="json", exclude=RUN_FIELDS)
