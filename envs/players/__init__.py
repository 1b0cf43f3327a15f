"""Who sits at the table: an engine (token ids), a chat API (text), a script, a replayed episode, a person.

base.py is the protocol; every other module is one kind of player.
"""
