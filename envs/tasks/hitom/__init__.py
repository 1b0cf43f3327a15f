"""Hi-ToM: where does A think that B thinks that … the object is? Orders 0 to 4, real rows and generated ones.

world.py      events and the belief tracker: what any chain of agents believes
sentences.py  events as English sentences and back
generator.py  seeded stories and questions; train and held-out parts share no story
levels.py     named difficulties
rows.py       task rows, from the generator or from the authors' file, and their prompts
env.py        the pure environment: parser and scorer profiles
feedback.py   what went wrong, by rule, without naming the answer
corpus.py     conversations for midtraining
task.py       what the registry lists
"""

from envs.tasks.hitom.task import mini_spec, spec

__all__ = ["mini_spec", "spec"]
