"""Episodes survive the codec exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envs.ledger.codec import decode_outcome, decode_trace, encode_outcome, encode_trace
from envs.types import FailureReason, Score, SeatTrace, Segment, Unscored

ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20).map(tuple)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    own = draw(ids)
    if draw(st.booleans()):
        return Segment(own, trainable=False, turn=draw(st.integers(0, 99)))
    logprobs = tuple(draw(st.lists(numbers, min_size=len(own), max_size=len(own))))
    return Segment(own, True, draw(st.integers(0, 99)), logprobs, draw(st.integers(0, 10**9)))


traces = st.builds(
    SeatTrace, st.text(min_size=1), st.booleans(), st.lists(segments(), max_size=6).map(tuple), st.none() | ids
)
scores = st.builds(Score, st.floats(0, 1), st.dictionaries(st.text(), numbers), st.booleans(), st.text())
failures = st.builds(Unscored, st.sampled_from(FailureReason), st.text())


@given(traces)
def test_traces_come_back_bit_for_bit(trace: SeatTrace) -> None:
    assert decode_trace(encode_trace(trace)) == trace


@given(scores | failures)
def test_outcomes_come_back_as_they_were(outcome: Score | Unscored) -> None:
    assert decode_outcome(encode_outcome(outcome)) == outcome
