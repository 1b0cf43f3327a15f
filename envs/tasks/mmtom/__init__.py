"""MMToM-QA, text only: what does the person think or want?"""

from envs.tasks.mmtom.task import spec

__all__ = ["spec"]
