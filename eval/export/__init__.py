"""Results for other tools. Each module writes one format from results and recorded episodes; reads nothing else.

table.py        an lm-eval-style table in Markdown, and lm-eval's results JSON
parquet.py      one line per episode, for pandas or DuckDB
inspect_log.py  logs that `inspect view` opens, one per task
wandb.py        Weights & Biases: scalars, a table of episodes, the report (offline unless told otherwise)
"""
