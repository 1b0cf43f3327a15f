"""Judges and critics: structured questions to a language model, and verdicts that are never made up.

spec.py   what is asked: template, schema, criteria, version
base.py   the Judge protocol and its two answers: Verdict or JudgeFailed
model.py  ModelJudge: questions to a language model through envs.client
"""
