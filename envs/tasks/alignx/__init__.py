"""AlignX: which of two replies a person prefers, from five kinds of knowledge about the person.

author.py the authors' measure, which needs log-probs of two models
task.py   rows, and what the registry lists
"""

from envs.tasks.alignx.task import arbitrary_spec, demo_spec, history16_spec, pair_spec, ugc_spec

__all__ = ["arbitrary_spec", "demo_spec", "history16_spec", "pair_spec", "ugc_spec"]
