"""UserLLM: one turn of a user who has an intent, from three sources.

measures.py  UserLM's measures and their directions
rows.py      row schema and reader
prompts.py   what the seat and the judges are told
env.py       the pure environment and the scorer profiles
examples.py  moments of our own
task.py      what the registry lists
"""

from envs.tasks.userllm.task import spec

__all__ = ["spec"]
