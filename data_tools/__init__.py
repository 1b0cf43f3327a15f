"""Corpora to indexed shards and back: read, render, tokenize, mask, pack, verify. No torch, no megatron.

Get       fetch (from the hub) · ground (give rows a social context)
Read      rows (any file) → jsonl, parquet → arrow_rows · conversation (a row) · columns (batches), texts, labels
Filter    decontaminate, near_duplicates → removal (lists of rows to leave out) · shingles (n-grams, MinHash)
Render    renderer (template, mask; RL uses it too) · routing (rule of each source), column_rules · long_rows
Tokenize  tokenizer (train one) · encoding, joined_texts · selfcheck (is the fast one right?) · assemble (batches)
Prepare   config · prepare (parent), pool (workers) · units (of input) · worker (one unit) · publish (join, rename)
Pack      packing (algorithm) · mixture (shares of sources) · repack (anew) · merge (shards of several jobs)
Store     hashed_file · indexed (Megatron's file pair) · shards (all files of a shard) · manifest
Use       packed (what the trainer reads) · inspect · verify
"""
