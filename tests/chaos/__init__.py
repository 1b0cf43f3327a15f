"""Faults on purpose: real runs are killed, frozen, starved and lied to, then resumed and compared (docs/chaos.md)."""
