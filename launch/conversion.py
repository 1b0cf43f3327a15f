"""`osim convert` and the comparison of an export with transformers, each as a job of local ranks.

Runs in the process of the command; the ranks are `launch.convert_worker`. Needs the memory of the model with its
optimizer (18 bytes a parameter in bf16), split over the ranks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config import Config, dump_yaml, load, read_yaml
from common.errors import DataError, UsageError, data_errors
from common.files import read_json_object, write_json
from common.run_folder import RunFolder
from launch.local import run_local
from megatron_osim.config import ArchitectureConfig, MidtrainConfig, ParallelConfig

RESULT = "comparison.json"


Direction = Literal["hf-to-megatron", "megatron-to-hf", "random-to-hf", "compare"]


class ConvertConfig(Config):
    """One conversion or comparison."""

    direction: Direction
    hf: Path
    """Hugging Face folder that is read, written or compared."""
    checkpoints: Path | None = None
    """Folder of Megatron checkpoints (RUN/checkpoints) that is written, or whose newest one is read."""
    architecture: ArchitectureConfig
    tokenizer: Path | None = None
    """Folder whose tokenizer files an export carries."""
    parallel: ParallelConfig = ParallelConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    compare_sequences: int = Field(default=4, ge=1)
    compare_length: int = Field(default=64, ge=2)
    compare_candidates: int = Field(default=512, ge=1)
    """Vocabulary entries whose log-probs are compared at every position, evenly spread."""
    seed: int = 0

    @property
    def ranks(self) -> int:
        return self.parallel.model_size


def hf_to_megatron(hf: Path, folder: Path, parallel: ParallelConfig, precision: Literal["fp32", "bf16"]) -> Path:
    """Write FOLDER/checkpoints/step-00000000 with the weights of `hf`; returns the checkpoints folder."""
    config = ConvertConfig(
        direction="hf-to-megatron",
        hf=hf.absolute(),
        checkpoints=folder / "checkpoints",
        architecture=ArchitectureConfig.from_hf_config(hf),
        parallel=parallel,
        precision=precision,
    )
    run = RunFolder.prepare(folder, config)
    with run.lock():
        run_local("launch.convert_worker", folder, config.ranks)
    return folder / "checkpoints"


def megatron_to_hf(run: Path, hf: Path, parallel: ParallelConfig) -> None:
    """Export the newest checkpoint of a midtraining run or of `hf_to_megatron`. `hf` appears whole or not at all."""
    if hf.exists():
        raise UsageError("it exists", where=str(hf), fix="give a folder that does not exist yet")
    _job(_of_run(run, "megatron-to-hf", hf, parallel))


def random_to_hf(config: MidtrainConfig, hf: Path) -> None:
    """Export the random weights that a midtraining run starts from."""
    _job(
        ConvertConfig(
            direction="random-to-hf",
            hf=hf,
            architecture=config.resolve_architecture(),
            tokenizer=config.tokenizer,
            precision=config.precision,
            seed=config.seed,
        )
    )


def compare_with_transformers(run: Path, hf: Path) -> float:
    """Largest |log-prob difference| of the run's newest checkpoint in Megatron from `hf` in transformers, in fp32."""
    return float(_job(_of_run(run, "compare", hf, ParallelConfig()))["max_difference"])


def _of_run(
    run: Path, direction: Literal["megatron-to-hf", "compare"], hf: Path, parallel: ParallelConfig
) -> ConvertConfig:
    from megatron_osim.layout import Capability, check_layout

    architecture, tokenizer, precision = _model_of(run / "config.yaml")
    if not any((run / "checkpoints").glob("step-*")):
        raise DataError(
            "no whole checkpoint here", where=str(run / "checkpoints"), fix="run osim midtrain to its end"
        )
    check_layout(architecture, parallel, world_size=parallel.model_size, capability=Capability())
    return ConvertConfig(
        direction=direction,
        hf=hf,
        checkpoints=run / "checkpoints",
        architecture=architecture,
        tokenizer=tokenizer,
        parallel=parallel,
        precision=precision,
    )


def _model_of(config: Path) -> tuple[ArchitectureConfig, Path | None, Literal["fp32", "bf16"]]:
    """(architecture, tokenizer folder, precision) of the checkpoints beside a config.yaml of either maker."""
    if "direction" in read_yaml(config):
        converted = load(ConvertConfig, config)
        return converted.architecture, converted.hf, converted.precision
    trained = load(MidtrainConfig, config)
    return trained.resolve_architecture(), trained.tokenizer or trained.init_from, trained.precision


def _job(config: ConvertConfig) -> dict[str, float]:
    """Run in a folder of its own, which vanishes; a failing rank's words are in the error."""
    with tempfile.TemporaryDirectory(prefix="osim-convert-") as temporary:
        folder = Path(temporary)
        (folder / "config.yaml").write_text(dump_yaml(config))
        write_json(folder / RESULT, {})
        run_local("launch.convert_worker", folder, config.ranks)
        with data_errors(str(folder / RESULT), fix="run the conversion again"):
            return {name: float(value) for name, value in read_json_object(folder / RESULT).items()}
