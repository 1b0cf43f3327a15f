"""`osim data fetch`: corpora from the Hugging Face hub into a local folder.

Downloads are resumed and checked by the hub's client. FETCHED.json in the folder names repository, commit and files,
so that a later reader knows what was fetched; fetching the same commit again does nothing.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx2
import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from common.errors import UsageError
from common.files import write_json

DATASETS = {
    "osim-mid-training": "cmu-lti/osim-mid-training",
    "osim-post-training": "cmu-lti/osim-post-training",
    "tau-usi": "cmu-lti/tau-usi",
    "sim-rl-data": "sunweiwei/sim-rl-data",
    "sim-eval-data": "sunweiwei/sim-eval-data",
    "merge-data": "sunweiwei/merge-data",
}
"""Short names of the public releases; any other owner/name is taken as it is."""
CORPUS_FILES = ("*.parquet", "*.jsonl", "*.jsonl.gz", "*.jsonl.zst")


@dataclass(frozen=True)
class FetchPlan:
    """What a fetch would download."""

    repository: str
    commit: str
    files: tuple[str, ...]
    bytes: int


def plan_fetch(
    dataset: str,
    *,
    revision: str | None = None,
    patterns: Sequence[str] = CORPUS_FILES,
    endpoint: str | None = None,
    token: str | None = None,
) -> FetchPlan:
    """Files and sizes of a dataset at a revision. Raises UsageError when it cannot be reached or nothing matches."""
    repository = _repository(dataset)
    api = huggingface_hub.HfApi(endpoint=endpoint, token=token)
    try:
        info = api.dataset_info(repository, revision=revision, files_metadata=True)
    except (GatedRepoError, RepositoryNotFoundError) as e:
        raise UsageError(
            "no such dataset, or no access to it",
            where=repository,
            fix="check the name, accept its terms on the hub, and log in with `hf auth login`",
        ) from e
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as e:
        raise _unreachable(repository, e) from e
    chosen = {s.rfilename: s.size or 0 for s in info.siblings or [] if _matches(s.rfilename, patterns)}
    if not chosen:
        raise UsageError("no file matches", where=repository, fix=f"give other patterns than {', '.join(patterns)}")
    return FetchPlan(repository, info.sha or "main", tuple(sorted(chosen)), sum(chosen.values()))


def fetch(
    plan: FetchPlan, output: Path, *, endpoint: str | None = None, token: str | None = None, workers: int = 4
) -> list[Path]:
    """Download the planned files into `output` and return their paths. Raises UsageError when the hub fails."""
    try:
        huggingface_hub.snapshot_download(
            plan.repository,
            repo_type="dataset",
            revision=plan.commit,
            local_dir=output,
            allow_patterns=[_literal(name) for name in plan.files],
            endpoint=endpoint,
            token=token,
            max_workers=workers,
        )
    except (HfHubHTTPError, EntryNotFoundError, httpx2.HTTPError, OSError) as e:
        raise _unreachable(plan.repository, e) from e
    write_json(output / "FETCHED.json", asdict(plan))
    return [output / name for name in plan.files]


def _repository(dataset: str) -> str:
    if dataset in DATASETS:
        return DATASETS[dataset]
    if dataset.count("/") != 1:
        raise UsageError(
            f"unknown dataset {dataset!r}", fix=f"give owner/name, or one of {', '.join(sorted(DATASETS))}"
        )
    return dataset


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _literal(name: str) -> str:
    """A pattern that matches exactly this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _unreachable(repository: str, error: Exception) -> UsageError:
    return UsageError(
        f"the hub did not answer: {error}",
        where=repository,
        fix="check the network and HF_HUB_OFFLINE; the same command resumes the download",
    )
