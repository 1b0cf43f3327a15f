"""One rank of a conversion: `python -m launch.convert_worker DIR --rank R --world-size N --rendezvous URL`.

Reads DIR/config.yaml (ConvertConfig). Rank 0 writes what there is to tell to DIR/comparison.json.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from common.config import load
from common.errors import run_main
from common.files import write_json
from common.seeds import derive_rng
from launch.conversion import RESULT, ConvertConfig
from megatron_osim.arguments import rank_parser
from megatron_osim.batch import PackedBatch
from megatron_osim.checkpoint import Checkpointer
from megatron_osim.config import CheckpointConfig, OptimizerConfig
from megatron_osim.convert import export_hf, load_hf, load_random
from megatron_osim.model import build_model
from megatron_osim.runtime import Ranks, initialize, shutdown
from megatron_osim.train_step import forward_logprobs
from megatron_osim.trainer import Trainer, build_trainer


def main() -> None:
    """Join the job, convert, leave the job."""
    options = rank_parser(__doc__).parse_args()
    config = load(ConvertConfig, options.run_dir / "config.yaml")
    try:
        ranks = initialize(
            config.parallel, rank=options.rank, world_size=options.world_size, rendezvous=options.rendezvous
        )
        convert(config, ranks, options.run_dir)
    finally:
        shutdown()


def convert(config: ConvertConfig, ranks: Ranks, folder: Path) -> None:
    """Collective: every rank calls it."""
    chunks = build_model(config.architecture, config.parallel, precision=config.precision)
    if config.direction == "random-to-hf":
        load_random(chunks, config.architecture, seed=config.seed)
        export_hf(chunks, config.architecture, config.hf, config.tokenizer)
        return
    assert config.checkpoints is not None
    if config.direction == "hf-to-megatron":
        load_hf(chunks, config.architecture, config.hf)
    trainer = build_trainer(
        chunks, config.architecture, config.parallel, OptimizerConfig(), ranks, precision=config.precision
    )
    checkpointer = Checkpointer(trainer, config.checkpoints, CheckpointConfig())
    if config.direction == "hf-to-megatron":
        checkpointer.save(0)
        checkpointer.wait()
        return
    checkpointer.load_latest()
    if config.direction == "megatron-to-hf":
        export_hf(chunks, config.architecture, config.hf, config.tokenizer)
    elif ranks.is_first:
        write_json(folder / RESULT, {"max_difference": max_difference(config, trainer)})


def max_difference(config: ConvertConfig, trainer: Trainer) -> float:
    """Largest difference of log-probs between this trainer and transformers on the export, in fp32."""
    from transformers import AutoModelForCausalLM

    vocabulary = config.architecture.vocab_size
    rng = derive_rng(config.seed, "compare")
    sequences = [rng.choices(range(vocabulary), k=config.compare_length) for _ in range(config.compare_sequences)]
    step = max(1, vocabulary // config.compare_candidates)
    candidates_K = torch.arange(0, vocabulary, step)
    reference = AutoModelForCausalLM.from_pretrained(config.hf, dtype=torch.float32, local_files_only=True).eval()
    worst = 0.0
    for sequence in sequences:
        batch = PackedBatch.from_sequences([sequence])
        labels_TK = candidates_K.expand(len(sequence), -1).contiguous()
        (ours_TK,) = forward_logprobs(trainer, [replace(batch, labels_T=labels_TK)])
        with torch.no_grad():
            logits_TV = reference(torch.tensor([sequence])).logits[0].float()
        theirs_TK = torch.log_softmax(logits_TV, dim=-1)[:, candidates_K]
        worst = max(worst, float((ours_TK - theirs_TK).abs().max()))
    return worst


if __name__ == "__main__":
    run_main(main)
