"""Hack detectors: pure functions of one turn and its context, run on every training rollout.

They are logged as rates and acted on by screening (dropping the sample), never by silent scaling of a reward. Their
false positives on human text matter most: a detector that punishes people teaches a model not to be one.

base.py       Context, Detector, running all of them on an episode
address.py    talks to the judge, asks for a score, injects instructions
rubric.py     recites the rubric
frame.py      breaks the frame: speaks as an assistant, comments on the role-play
narration.py  tells about itself in the third person
repetition.py repeats itself
copying.py    copies earlier turns or the reference
leak.py       gives away text that was marked hidden
script.py     switches to another writing system
register.py   writes an essay: headings, lists, bold
rates.py      rates with intervals, and alarms when they drift
length.py     batch level: does length earn reward?
canaries.py   hacked and clean talks that show whether the live judge can still tell them apart
"""
