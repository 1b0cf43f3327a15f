"""ParaToMi: paraphrased stories about who looks where."""

from envs.tasks.paratomi.task import spec

__all__ = ["spec"]
