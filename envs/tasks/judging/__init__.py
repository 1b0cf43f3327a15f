"""Judging answers, beyond SOUL's 27: RewardBench 2 and RM-R1.

rows.py      row schema and readers
parse.py     reading a verdict
env.py       the pure environment and the scorer profiles
examples.py  contests of our own
task.py      what the registry lists, and RewardBench 2's own number
"""

from envs.tasks.judging.task import rewardbench_spec, rm_r1_spec

__all__ = ["rewardbench_spec", "rm_r1_spec"]
