"""Configuration of one evaluation: what is asked, which model, and whom it meets. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from common.config import Config
from common.errors import UsageError
from common.files import hash_json
from common.redact import redact
from envs.client.config import DEFAULT_URL_VARIABLE, ClientConfig, Endpoint, RoleName
from eval.config import EvalConfig
from rl.rollout.config import RolloutConfig

API = "api:"
IDENTITY_FIELDS = frozenset({"model", "base_url", "extra_body", "structured", "send_temperature"})
"""What of an endpoint changes its answers; keys, prices and limits do not."""


class VllmConfig(Config):
    """A vLLM server that is started for the evaluation."""

    python: Path | None = None
    """Interpreter with vllm; None: this one."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs of the server."""
    max_context: int = Field(default=8192, ge=16)
    """Longest prompt with its completion, in tokens."""
    gpu_memory: float = Field(default=0.85, gt=0, lt=1)
    """Share of a GPU's memory (of the machine's on a CPU)."""
    max_running_requests: int = Field(default=64, ge=1)
    """Requests that it decodes at once."""
    extra_flags: tuple[str, ...] = ()
    """More flags of vLLM's own."""
    start_timeout_s: float = Field(default=900.0, gt=0)
    """Longest wait for its first answer."""
    generate_timeout_s: float = Field(default=600.0, gt=0)
    """Longest wait for one completion."""


class EvalModelConfig(Config):
    """Which model is evaluated: local weights or an endpoint."""

    path: Path | None = None
    """Hugging Face folder, or Megatron checkpoints: RUN, RUN/checkpoints or one step folder in it."""
    endpoint: Endpoint | None = None
    """OpenAI-compatible endpoint and the name of its model."""
    engine: RolloutConfig = RolloutConfig(kind="embedded")
    """What serves local weights."""
    vllm: VllmConfig | None = None
    """Serve them with vLLM instead."""

    @model_validator(mode="after")
    def _one(self) -> EvalModelConfig:
        if (self.path is None) == (self.endpoint is None):
            raise ValueError("give either path (local weights) or endpoint (an API model)")
        return self

    @property
    def label(self) -> str:
        """A short name for tables."""
        if self.path is not None:
            return self.path.name
        assert self.endpoint is not None
        return self.endpoint.model


class EvalRunConfig(EvalConfig):
    """One evaluation of one model: what is asked, of whom, against whom."""

    name: str = ""
    """Label in tables; empty: the model's folder or name."""
    model: EvalModelConfig
    client: ClientConfig = ClientConfig()
    """Endpoints of judge and partner, budget, recorded replies. `client.policy` is set by `model.endpoint`."""
    partner_temperature: float | None = None
    """None: the partner endpoint's own default."""
    keep_replies: bool = True
    """Replies of judges, partners and API models are kept in RUN/replies.sqlite: no recorded call is made twice."""

    @model_validator(mode="after")
    def _named(self) -> EvalRunConfig:
        if not self.name:
            object.__setattr__(self, "name", self.model.label)
        if self.client.policy is not None:
            raise ValueError("client.policy: name the evaluated API model under model.endpoint")
        return self

    @property
    def questions(self) -> EvalConfig:
        """What is asked, without whom."""
        return EvalConfig(**{name: getattr(self, name) for name in EvalConfig.model_fields})

    def computed(self) -> dict[str, Any]:
        """Questions, model and opponents; not speed, price, bounds or where replies are kept."""
        model = self.model.model_dump(mode="json")
        return {"asked": self.questions.asked(), "name": self.name, "model": model, "opponents": self.opponents({})}

    def client_config(self, run: Path) -> ClientConfig:
        """The client of a run: the evaluated endpoint as policy, and recorded replies in the run folder."""
        changes: dict[str, Any] = {"policy": self._policy_endpoint()}
        if self.keep_replies and self.client.cache == "live":
            changes["cache"] = "replay"
        if self.client.cache_file is None and (self.keep_replies or self.client.cache != "live"):
            changes["cache_file"] = run / "replies.sqlite"
        return self.client.model_copy(update=changes)

    def _policy_endpoint(self) -> Endpoint | None:
        endpoint = self.model.endpoint
        asked = self.decoding.model_dump(include={"top_p", "top_k"}, exclude_defaults=True)
        if endpoint is None or not asked:
            return endpoint
        return endpoint.model_copy(update={"extra_body": {**endpoint.extra_body, **asked}})

    def opponents(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Identity of every configured role but the policy."""
        roles: tuple[RoleName, ...] = ("judge", "partner", "critic", "auditor")
        found: dict[str, str] = {
            role: endpoint_identity(e, environment) for role in roles if (e := getattr(self.client, role))
        }
        if "partner" in found and self.partner_temperature is not None:
            found["partner"] += f" temperature {self.partner_temperature:g}"
        return found


def endpoint_identity(endpoint: Endpoint, environment: Mapping[str, str]) -> str:
    """Which model at which address, readable, without secrets; equal for endpoints that give equal answers."""
    address = redact(endpoint.base_url or environment.get(DEFAULT_URL_VARIABLE) or "default endpoint")
    rest = endpoint.model_dump(mode="json", include=set(IDENTITY_FIELDS) - {"model", "base_url"})
    defaults = Endpoint(model=endpoint.model).model_dump(mode="json", include=set(rest))
    options = f" options {hash_json(rest)[:8]}" if rest != defaults else ""
    return f"{endpoint.model} at {address}{options}"


def parse_endpoint(ref: str) -> dict[str, Any]:
    """`api:MODEL` or `api:MODEL@URL` as fields of an Endpoint."""
    if not ref.startswith(API):
        raise UsageError(f"{ref!r} is no endpoint", fix="write api:MODEL or api:MODEL@https://host/v1")
    name, at, url = ref[len(API) :].partition("@http")
    if not name:
        raise UsageError(f"{ref!r} names no model", fix="write api:MODEL or api:MODEL@https://host/v1")
    return {"model": name, **({"base_url": "http" + url} if at else {})}


def parse_model(ref: str) -> dict[str, Any]:
    """What `--model REF` stands for: an endpoint (`api:…`) or a path that exists. Raises UsageError."""
    if ref.startswith(API):
        return {"endpoint": parse_endpoint(ref)}
    if not Path(ref).exists():
        raise UsageError(
            "no such folder",
            where=f"--model {ref}",
            fix="give a Hugging Face folder, a run or checkpoint folder, or an endpoint: api:MODEL[@URL]",
        )
    return {"path": str(Path(ref))}
