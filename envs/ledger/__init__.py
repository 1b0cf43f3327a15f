"""The ledger of a run: every episode, judge call and training consumption, in one crash-safe SQLite file.

schema.py  tables, keys, opening a database
codec.py   episodes as bytes and back, exactly
write.py   Ledger: the one writer (a thread that commits in groups)
tables.py  what the writer does to the tables
read.py    LedgerReader: what resume, viewer, cost and replay ask
export.py  Parquet files for other tools
"""

from envs.ledger.read import LedgerReader
from envs.ledger.schema import LEDGER_FILE, Consumed, EpisodeKey, LedgerNotStarted, Recorded
from envs.ledger.write import Ledger

__all__ = ["LEDGER_FILE", "Consumed", "EpisodeKey", "Ledger", "LedgerNotStarted", "LedgerReader", "Recorded"]
