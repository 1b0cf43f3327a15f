"""The tasks: one package each, pure environments with their rows, prompts, parsers and scorers.

A task package offers `spec()` (what `envs.registry` lists) and, where its stories are made by rule, a generator.
"""
