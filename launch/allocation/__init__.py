"""What runs on the nodes of an allocation, started by the job script (`launch.submit.sbatch`).

`torchrun` one agent a node · `rank` every process: its log, its exit code · `preflight` checks before the expensive
part · `server`, `coordinator`, `actor` the three roles of RL.
"""
