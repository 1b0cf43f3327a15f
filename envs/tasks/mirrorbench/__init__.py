"""MirrorBench: user proxies against real users.

lexical.py   the authors' lexical measures and calibration
rows.py      row schema and reader
prompts.py   what seats, judges and critic are told
env.py       the pure environment
examples.py  conversations of our own
task.py      what the registry lists
"""

from envs.tasks.mirrorbench.task import spec

__all__ = ["spec"]
