"""LifeChoices: which of four decisions a literary character takes, given the life so far.

soul.py the permissive parser of OdysSim
task.py rows, and what the registry lists
"""

from envs.tasks.lifechoices.task import spec

__all__ = ["spec"]
