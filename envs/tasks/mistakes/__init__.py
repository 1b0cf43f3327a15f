"""Mistakes: the wrong option that a pupil with a given misconception chooses."""

from envs.tasks.mistakes.task import spec

__all__ = ["spec"]
