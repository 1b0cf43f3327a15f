"""Social-R1: social reasoning questions with up to 26 options."""

from envs.tasks.social_r1.task import spec

__all__ = ["spec"]
