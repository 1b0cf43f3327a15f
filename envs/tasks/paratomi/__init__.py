"""ParaToMi: who looks where for what.

generator.py stories of the same form in our own words, with true answers: the task runs and trains with no download
task.py      rows of the authors' files, the pure environment, what the registry lists
"""

from envs.tasks.paratomi.task import spec

__all__ = ["spec"]
