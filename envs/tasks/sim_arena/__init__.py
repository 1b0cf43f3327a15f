"""SimulatorArena: a simulated student with a tutor (sim_math), a simulated writer with an assistant (sim_doc).

rows.py      row schema and readers
prompts.py   what seats, judges and critic are told
env.py       the pure environment and the scorer profiles
examples.py  sessions of our own
task.py      what the registry lists
"""

from envs.tasks.sim_arena.task import doc_spec, math_spec

__all__ = ["doc_spec", "math_spec"]
