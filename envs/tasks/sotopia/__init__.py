"""Sotopia: two people with private goals talk; a judge scores seven dimensions.

dimensions.py  the seven dimensions and the numbers made of them
rows.py        row schema and reader
actions.py     reading a turn
prompts.py     what seats, judge and coach are told
env.py         the pure environment
examples.py    situations of our own
task.py        what the registry lists
"""

from envs.tasks.sotopia.task import hard_spec, selfplay_spec, spec

__all__ = ["hard_spec", "selfplay_spec", "spec"]
