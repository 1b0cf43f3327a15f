"""A talk between two people with private wishes who look for an agreement: two-seat self-play with a score by rule.

scenes.py  situations, their split into parts, rows
env.py     the pure environment: offers, acceptance, points
corpus.py  scripted talks as midtraining rows
task.py    what the registry lists
"""

from envs.tasks.negotiate.task import spec

__all__ = ["spec"]
