"""Placeholder replaced below."""

from __future__ import annotations
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    nemo_run: bool
    why: str

    @property
    def line(self):
        return self.why


def choose(job, settings):
    return Choice(False, "our own script")


def preview(job, script, choice):
    return script


def submit(*a):
    raise NotImplementedError
