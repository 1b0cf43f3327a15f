"""BehaviorChain: a character's next behaviour, all along a chain of them.

author.py the authors' own letter rule and chain measures
rows.py   OdysSim's rows and the authors' book files
task.py   what the registry lists
"""

from envs.tasks.behaviorchain.task import spec

__all__ = ["spec"]
