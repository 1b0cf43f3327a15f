"""`osim eval` composed: a model behind a player, judges and partners behind a client, the run folder's ledger.

config.py       what is evaluated, whom it meets, and how REF names a model
model.py        opening the model: local weights (SGLang, vLLM, embedded) or an OpenAI-compatible endpoint
vllm.py         one vLLM server and its engine
run.py          evaluate: plan, check, play, results, progress
preflight.py    the dry run: endpoints answer, the judge's JSON is valid, calls, tokens, price, time, disk
rescoring.py    recorded episodes under another profile or judge
likeness.py     a run's turns against human turns
exporting.py    results in other tools' formats

Nothing here imports torch before local weights are opened: API models are evaluated without it.
"""

from launch.evaluation.config import EvalModelConfig, EvalRunConfig
from launch.evaluation.model import weights_hash
from launch.evaluation.rescoring import rescore_run
from launch.evaluation.run import dry_run, evaluate

__all__ = ["EvalModelConfig", "EvalRunConfig", "dry_run", "evaluate", "rescore_run", "weights_hash"]
