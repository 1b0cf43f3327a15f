"""TwinVoice: which of four replies is this person's.

author.py the authors' own answer rules and both of their denominators
rows.py   OdysSim's rows and the authors' three dimensions
task.py   what the registry lists
"""

from envs.tasks.twinvoice.task import spec

__all__ = ["spec"]
