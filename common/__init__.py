"""The leaf package: errors, files, configuration, seeds and run folders that every other package shares.

It imports none of osim's packages and no heavy library (checked by import-linter).
"""
