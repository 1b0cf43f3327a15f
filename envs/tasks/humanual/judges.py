"""What judges and the critic of HUMANUAL are asked. Pure data.

Three instruments, one per profile: strict leaves out the aspects that the person's own reply does not express
(OdysSim's rule gives full marks on them to any reply that is bland enough); soul is OdysSim's six aspects; author is
HumanLM's key points (arXiv:2603.03303; spec: odyssim, appendix E).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from envs.judges.spec import JudgeSpec
from envs.tasks.verdicts import Advice, Reply

ASPECTS: Mapping[str, str] = {
    "stance": "with what, by name, the writer agrees or disagrees, and how strongly",
    "emotion": "which feeling the writer shows, how strong, and towards what",
    "belief": "what the writer takes for granted about people or the world in general",
    "value": "what the writer holds to be important, what ought to matter",
    "goal": "what the writer wants to bring about by writing this",
    "communication": "tone of voice and how the message is built",
}

_SCALE = """\
1.0 says in substance the same, down to its object, reasons or examples; 0.7 to 0.9 nearly the same, with small
gaps; 0.4 to 0.6 the same direction, but what makes it specific is missing or different; 0.1 to 0.3 only the
direction on the surface; 0.0 absent, opposite or about something else."""

_TEXTS = """\
What the person had read:
{context}

What the person wrote:
{reference}

The attempt:
{reply}"""

_UNTRUSTED = ("context", "reference", "reply")


class Aspect(Reply):
    """One aspect, where it may be absent from the person's reply."""

    reason: str
    expressed: bool
    match: float = Field(ge=0, le=1)


class AspectVerdict(Reply):
    """The strict judge's reply."""

    stance: Aspect
    emotion: Aspect
    belief: Aspect
    value: Aspect
    goal: Aspect
    communication: Aspect


class SoulAspect(Reply):
    """One aspect."""

    reason: str
    match: float = Field(ge=0, le=1)


class SoulVerdict(Reply):
    """The soul judge's reply."""

    stance: SoulAspect
    emotion: SoulAspect
    belief: SoulAspect
    value: SoulAspect
    goal: SoulAspect
    communication: SoulAspect


class KeyPoint(Reply):
    """One thing that the person's reply says."""

    point: str
    match: float = Field(ge=0, le=1)


class KeyPointVerdict(Reply):
    """The author judge's reply."""

    key_points: list[KeyPoint] = Field(min_length=1, max_length=3)
    penalty: float = Field(ge=0, le=1)


_LISTED = "\n".join(f"* {name}: {meaning};" for name, meaning in ASPECTS.items())

STRICT = JudgeSpec(
    id="humanual_aspects",
    version=1,
    instructions=f"""\
A person read something and wrote a reply. Somebody else tried to write what this person would. Compare the attempt
with the person's own reply, aspect by aspect:
{_LISTED}
For each aspect decide first, from the person's own reply alone, whether it is expressed there at all. If it is not,
set expressed to false and match to 0: it will not be counted. Communication is always expressed.
If it is, set match by this scale:
{_SCALE}
Judge each aspect by itself. Agreement in general words, or an all-purpose reply that would fit any thread, is at most
0.2 wherever the person said something of substance. Text repeated from what the person had read counts for nothing.
Length earns nothing; what the attempt adds and the person would not have said lowers the aspects it touches.
Give a reason of one sentence before each decision.""",
    template=_TEXTS,
    schema=AspectVerdict,
    untrusted=_UNTRUSTED,
    max_tokens=2048,
)

SOUL = JudgeSpec(
    id="humanual_soul",
    version=1,
    instructions=f"""\
Compare an attempt at a person's reply with the reply that the person really wrote, on six aspects:
{_LISTED}
Give each aspect a match from 0 to 1:
{_SCALE}
Where the person's reply does not express an aspect, an attempt that is neutral there too gets 1.0, and one that adds
something out of tune gets less. General agreement without the person's substance gets at most 0.2. An attempt that
only repeats what the person had read gets 0 on all aspects; a malformed one gets half of what it would get.
Give a reason of one line for each.""",
    template=_TEXTS,
    schema=SoulVerdict,
    untrusted=_UNTRUSTED,
    max_tokens=2048,
)

AUTHOR = JudgeSpec(
    id="humanual_key_points",
    version=1,
    instructions="""\
Compare an attempt at a person's reply with the reply that the person really wrote. First name one to three separate
key points of the person's reply. Give each a match from 0 to 1: 1.0 exactly reflected; 0.7 to 0.9 mostly; 0.4 to 0.6
in part, in the right direction; 0.1 to 0.3 hardly; 0.0 missing, contradicted or reversed. Be strict above 0.8.
Then give a penalty from 0 to 1 for what the attempt adds: 0.0 nothing that matters; 0.1 to 0.3 slightly needless or
speculative; 0.4 to 0.6 speculative or beside the point; 0.7 to 0.9 misleading or contradicting; 1.0 mostly off the
subject. Length is no merit; a much longer attempt is penalised. An attempt that repeats what the person had read
without quoting it gets 0 for every point.""",
    template=_TEXTS,
    schema=KeyPointVerdict,
    untrusted=_UNTRUSTED,
)

CRITIC = JudgeSpec(
    id="humanual_critic",
    version=1,
    role="critic",
    instructions="""\
Somebody tried to write what one person would reply, and you know what the person wrote. In at most three sentences
tell the writer what to change about stance, feeling, purpose, tone or length so that the next attempt is closer. Do
not quote or paraphrase the person's reply and give away none of its facts: the writer must find the words.""",
    template=_TEXTS,
    schema=Advice,
    untrusted=_UNTRUSTED,
)

JUDGES = (STRICT, SOUL, AUTHOR, CRITIC)
