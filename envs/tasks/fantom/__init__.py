"""FANToM: who knows what after joining and leaving a conversation.

author.py  the authors' own answer rules
scorers.py answers under each profile
sets.py    the authors' numbers over sets of questions
task.py    rows, the pure environment, what the registry lists
"""

from envs.tasks.fantom.task import spec

__all__ = ["spec"]
