"""Episodes: pure environments, players, judges and the ledger. No torch, no megatron.

Contracts  types (data of an episode) · env (a task's rules) · engine (token ids in and out)
Play       play (the driver, the only I/O) · tokens (a seat's context) · boundary (bugs become data)
Tasks      registry (what each task is) · tasks/ (one package each) · check (conformance) · golden (authors' rules)
Seats      players/ (engine, chat API, script, replay, person)
Verdicts   judges/ (structured questions) · detectors/ (reward hacks) · client/ (model APIs) · ranks (rank statistics)
Record     ledger/ (every episode, call and training use, in one SQLite file)
"""
