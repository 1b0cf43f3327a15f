"""CoSER: a cast plays a scene from a book; a judge compares it with the original.

rows.py      row schema and reader
speech.py    thoughts, speech and actions
author.py    the authors' formula
prompts.py   what seats, judges and critic are told
env.py       the pure environment and the scorer profiles
examples.py  scenes of our own
task.py      what the registry lists
"""

from envs.tasks.coser.task import spec

__all__ = ["spec"]
