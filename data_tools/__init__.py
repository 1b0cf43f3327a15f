"""Corpora to indexed shards and back: read, render, tokenize, mask, pack, verify. No torch, no megatron."""
