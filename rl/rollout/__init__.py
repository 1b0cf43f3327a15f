"""The rollout service: engines that draw tokens from the actor's weights. Runs on rank 0, servers beside it.

base.py      what the trainer needs of an engine; config.py: which engines, and how weights reach them
select.py    which engine a run gets
embedded.py  transformers in this process; slots.py, draw.py: its model and its sampling, reproducible bit for bit
sglang.py    the client of one SGLang server; http.py: its connections; server.py: the server's process
pool.py      several servers as one engine: routing, retry, replacement
meter.py     an engine, counted; checkpoint.py: reading exports
sglang_cpu/  what lets the unmodified SGLang serve on a CPU, in its own environment
"""
