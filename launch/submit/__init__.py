"""Jobs on a cluster: what is submitted, how it is rendered, and what became of it. Runs where the user types.

`config` what a site and a chain are · `jobs` recipes to jobs · `sbatch` jobs to scripts · `shell` this machine or one
behind SSH · `slurm` Slurm's own words · `nemo` submission through NeMo-Run · `record` what was submitted ·
`submit` all of it together · `local` the same jobs without Slurm, `local_state` what became of those ·
`follow` status, logs, cancel, waiting.
What runs on the nodes is `launch.allocation`.
"""
