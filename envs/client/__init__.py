"""The one client for language-model APIs: judges, partners, critics and auditors.

config.py       endpoints per role, prices, limits, cache mode
client.py       Client: one request with all that follows, from cache to ledger record
transport.py    the openai SDK, and its errors as ours
retry.py        what to repeat, and when
concurrency.py  adaptive concurrency
rate.py         requests and tokens per minute
budget.py       prices and the spending limit
cache.py        live / record / replay / replay-strict
structured.py   JSON replies: schema, validation, re-ask
transcript.py   untrusted text in a delimited, escaped block
"""
