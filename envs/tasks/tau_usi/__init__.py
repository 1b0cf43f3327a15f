"""tau-USI: a simulated customer of a shop or an airline, whose agent has tools.

database.py     records as an immutable value
tools.py        what a tool is, calling one
retail.py       the shop's tools
airline.py      the airline's tools
generator.py    requests made by rule
rows.py         row schema, tau-bench's own files
humans.py       what real customers did
prompts.py      what customer, agent and judge are told
survey.py       the questions at the end
env.py          the pure environment
features.py     how a customer talks
usi.py          the population's score
reliability.py  pass^k
task.py         what the registry lists
"""

from envs.tasks.tau_usi.task import spec

__all__ = ["spec"]
