"""Breaking the frame: an assistant's voice, comments on the role-play, leaked reasoning marks. Pure."""

from __future__ import annotations

import re

PATTERNS = (
    re.compile(
        r"\bas an? (?:AI|artificial intelligence|(?:large )?language model|(?:virtual |AI )?assistant)\b", re.I
    ),
    re.compile(
        r"\bI(?:['’]m| am) (?:just |only )?an? (?:AI\b|(?:large )?language model|virtual assistant|chatbot)", re.I
    ),
    re.compile(
        r"\b(?:I(?:['’]m| am| will be|['’]ll be)|we(?:['’]re| are)) (?:now |just |only )?"
        r"(?:role[- ]?play\w*|simulating|playing the (?:role|part)|acting as the (?:user|character))",
        re.I,
    ),
    re.compile(r"\bin this (?:role[- ]?play|simulation|scenario|fictional (?:setting|scenario)|exercise)\b", re.I),
    re.compile(r"\b(?:the|my) (?:simulated|fictional|assigned) (?:user|character|persona|role)\b", re.I),
    re.compile(
        r"\b(?:the|my) (?:character|persona|user)(?:['’]s)? (?:would|should|might) (?:say|respond|reply|answer|feel)",
        re.I,
    ),
    re.compile(r"</?think(?:ing)?>|</?(?:scratchpad|reasoning)>", re.I),
    re.compile(
        r"\bhere(?:['’]s| is) (?:my|a|the|your) (?:possible |next |revised |final |in-character )?"
        r"(?:response|reply|answer|message|turn|output)\b",
        re.I,
    ),
    re.compile(r"^\s*(?:\*\*)?(?:response|reply|output|user message|my next message)(?:\*\*)?\s*:", re.I),
    re.compile(r"\b(?:out of|OOC|breaking) character\b|\(OOC\b|\[OOC\b", re.I),
)


def find(text: str) -> str | None:
    """The phrase, or None."""
    return next((m.group(0)[:120] for p in PATTERNS if (m := p.search(text))), None)
