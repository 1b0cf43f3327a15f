"""Plan before submit: what a recipe needs of a cluster, whether it fits, and what would. No torch, no network.

cluster.py      what the cluster has
memory.py       bytes of one training rank, by component; exact.py: counted on the trainer itself
training.py     the verdict on a layout, the time of a step, and legal layouts that fit
rollout.py      what a rollout server holds and how fast it decodes
calls.py        what a step asks of judges, critics and partners
midtrain.py     the plan of a midtraining recipe
rl.py           the plan of an RL recipe
recipes.py      the plan of a recipe file of any kind
report.py       a plan as a person reads it
calibration.py  predicted against measured, of a finished run
"""
