"""ToMBench: bilingual theory-of-mind multiple choice.

author.py the authors' own answer rules
task.py   rows, and what the registry lists
"""

from envs.tasks.tombench.task import spec

__all__ = ["spec"]
