"""HumanLLM, item selection: which of twenty things a shopper buys next."""

from envs.tasks.humanllm.task import spec

__all__ = ["spec"]
