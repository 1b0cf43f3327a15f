"""Does RL raise held-out accuracy? grpo, verbal_feedback and opd on generated Hi-ToM questions, real SGLang rollouts.

    python -m tests.bench.rl.learning OUT [--model MODEL] [--algorithms grpo,verbal_feedback,opd] [--seeds 0,1,2]
                                      [--rollouts 9216]

MODEL: a midtrained folder; without it one is made by the quickstart's own stages (BASE). Every algorithm gets the
same budget of rollouts, 96 a step: 12 prompts of 8 samples (grpo) or of 4 drafts and at most as many refinements
(verbal_feedback), or 96 prompts of one sample (opd). Held-out questions share no story with training; greedy. Prints
every seed's paired difference and its training rewards (all of them in OUT/curves.json), and per algorithm the mean
over seeds with the mean of their 95 % intervals (stories resampled; the questions are the same for all seeds). Up to
20 minutes per algorithm and seed on two quiet cores, so `osim bench` leaves it out. Interrupted, the same command
goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import orjson

from common.config import validate
from common.files import write_bytes
from common.run_folder import RunFolder
from eval.compare import compare
from eval.results import Results
from rl.config import RLConfig

ROLLOUTS_PER_STEP = 96
QUESTIONS = 2000
BASE = ("corpus.stories=9500", "midtrain.steps=1350")
"""Changes to the quickstart: a third longer."""

ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"name": "grpo"},
    "verbal_feedback": {"name": "verbal_feedback"},
    "opd": {"name": "opd", "teacher": "ema", "divergence": "top_k", "teacher_temperature": 0.4},
}
EMA_DECAY = 0.9999
"""The teacher stays what it was: its student forgets how to use the privileged context."""
SAMPLES = {"grpo": 8, "verbal_feedback": 4, "opd": 1}
"""A draft of verbal_feedback may have a refinement beside it; distillation compares no samples of one prompt."""
PROMPTS = {"grpo": 12, "verbal_feedback": 12, "opd": 96}


def midtrained(folder: Path) -> Path:
    """The model that RL starts from: corpus to export by the stages of the quickstart; what is there is kept."""
    from launch.kinds import shipped
    from launch.quickstart.config import Folders, resolve
    from launch.quickstart.pipeline import Pipeline
    from launch.quickstart.stages import stages

    config = resolve(shipped("quickstart.yaml"), BASE, folder)
    RunFolder.prepare(folder, config)
    made = ("corpus", "tokenizer", "shards", "midtrain", "export")
    Pipeline(folder, [stage for stage in stages(config, folder) if stage.name in made]).run()
    return Folders(folder).model


def rl_config(model: Path, algorithm: str, seed: int, rollouts: int) -> RLConfig:
    """Equal rollouts for every algorithm."""
    steps = rollouts // ROLLOUTS_PER_STEP
    return validate(
        RLConfig,
        {
            "model": str(model),
            "tasks": [
                {
                    "task": "hitom_mini",
                    "rows": max(400, steps * PROMPTS[algorithm]),
                    "algorithm": ALGORITHMS[algorithm],
                },
            ],
            "steps": steps,
            "groups_per_step": PROMPTS[algorithm],
            "samples_per_prompt": SAMPLES[algorithm],
            "sampling": {"max_tokens": 32, "max_context_tokens": 1024},
            "optimizer": {"lr": 3e-4, "schedule": "constant"},
            "rollout": {"kind": "sglang"},
            "max_staleness": 1,
            "ema_decay": EMA_DECAY if algorithm == "opd" else None,
            "seed": seed,
        },
        where="learning bench",
    )


def held_out(model: Path, out: Path, seed: int) -> Results:
    """Accuracy on questions that no run trains on."""
    from launch.evaluation import EvalRunConfig, evaluate

    asked = {
        "name": out.name,
        "suite": "hitom_mini",
        "limit": QUESTIONS,
        "model": {"path": str(model)},
        "decoding": {"temperature": 0.0, "max_tokens": 32},
        "seed": seed,
    }
    return evaluate(validate(EvalRunConfig, asked, where="learning bench"), out)


def main() -> None:
    from launch.training import rl

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--algorithms", default="grpo,verbal_feedback,opd")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rollouts", type=int, default=96 * ROLLOUTS_PER_STEP)
    asked = parser.parse_args()
    out = asked.out.absolute()
    model = asked.model or midtrained(out / "base")
    before = held_out(model, out / "before", 0)
    curves: dict[str, list[float]] = {}
    for algorithm in asked.algorithms.split(","):
        differences = []
        for seed in map(int, asked.seeds.split(",")):
            folder = out / f"{algorithm}-{seed}"
            run = rl(rl_config(model, algorithm, seed, asked.rollouts), folder, 1)
            (task,) = compare(before, held_out(folder / "hf", out / f"{algorithm}-{seed}-after", 0)).tasks
            d = task.difference
            differences.append(d)
            minutes = sum(line["seconds/step"] for line in run.read_metrics("rl")) / 60
            curve = curves[f"{algorithm} seed {seed}"] = [line["reward/mean"] for line in run.read_metrics("rl")]
            write_bytes(out / "curves.json", orjson.dumps(curves))
            print(
                f"{algorithm} seed {seed}: {task.before:.3f} -> {task.after:.3f}, "
                f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}], "
                f"training reward {curve[0]:.3f} -> {curve[-1]:.3f}, {minutes:.1f} minutes in steps",
                flush=True,
            )
        n = len(differences)
        mean = sum(d.value for d in differences) / n
        # The same questions are asked for every seed: half-widths are averaged, not divided by sqrt(n).
        half = sum((d.high - d.low) / 2 for d in differences) / n
        print(f"{algorithm}: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] over {n} seeds", flush=True)


if __name__ == "__main__":
    main()
