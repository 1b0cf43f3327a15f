"""A seat's token context: append-only segments, exactly what the engine saw. Pure.

The first prompt is rendered once; ids that the engine sampled are kept as they came and never tokenized again; a
later turn appends the end token (if the model did not sample it), the template's closing, and only the new messages.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from data_tools.renderer import Renderer
from envs.engine import Generation
from envs.types import Message, Seat, SeatTrace, Segment


class Prompts:
    """First prompts by their messages: the samples of a group share theirs, which is tokenized once.

    Holds the `most` that were used last.
    """

    def __init__(self, renderer: Renderer, most: int = 256) -> None:
        self.renderer, self._most = renderer, most
        self._known: OrderedDict[tuple[Message, ...], tuple[int, ...]] = OrderedDict()

    def ids(self, view: Sequence[Message]) -> tuple[int, ...]:
        """Everything an engine needs for the first turn."""
        key = tuple(view)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = tuple(self.renderer.prompt_ids(view))
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return found


class TokenContext:
    """Builds the SeatTrace of one seat in one episode."""

    def __init__(self, prompts: Prompts, seat: Seat, *, learnable: bool) -> None:
        self._prompts, self._renderer = prompts, prompts.renderer
        self._seat, self._learnable = seat, learnable
        self._ids: list[int] = []
        self._segments: list[Segment] = []
        self._plain_prompt: tuple[int, ...] | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Everything so far: the next prompt after `given`."""
        return tuple(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def render(self, new: Sequence[Message]) -> tuple[int, ...]:
        """The ids that hearing `new` and being asked to speak would append."""
        r = self._renderer
        if not self._segments:
            return self._prompts.ids(new)
        ended = self._ids[-1] == r.end_id
        ids = [*(() if ended else (r.end_id,)), *r.closing_ids]
        for message in new:
            ids += r.message_ids(message)
        return (*ids, *r.opening_ids("assistant"))

    def given(self, ids: tuple[int, ...], turn: int) -> None:
        """Append ids that the seat did not sample."""
        self._ids += ids
        self._segments.append(Segment(ids, trainable=False, turn=turn))

    def sampled(self, generation: Generation, turn: int) -> None:
        """Append what the engine sampled, one segment per weight version."""
        self._ids += generation.ids
        for span in generation.versions:
            self._segments.append(
                Segment(
                    generation.ids[span.start : span.end],
                    trainable=True,
                    turn=turn,
                    logprobs=generation.logprobs[span.start : span.end],
                    version=span.version,
                )
            )

    def played_with_feedback(self, plain_view: Sequence[Message]) -> None:
        """Remember the first prompt as it would be without feedback."""
        self._plain_prompt = self._prompts.ids(plain_view)

    def restore(self, segments: Sequence[Segment]) -> None:
        """Append segments of an earlier episode as they were (fork and replay)."""
        for segment in segments:
            self._ids += segment.ids
            self._segments.append(segment)

    def trace(self) -> SeatTrace:
        """What happened so far."""
        return SeatTrace(self._seat, self._learnable, tuple(self._segments), self._plain_prompt)


def with_feedback(view: Sequence[Message], text: str) -> tuple[Message, ...]:
    """`view` with `text` appended to its first user message (to its last message when there is none)."""
    if not view:
        return (Message("user", text),)
    at = next((i for i, m in enumerate(view) if m.role == "user"), len(view) - 1)
    hinted = Message(view[at].role, f"{view[at].content}\n\n{text}")
    return (*view[:at], hinted, *view[at + 1 :])


def prompt_with(renderer: Renderer, first_view: Sequence[Message], text: str | None = None) -> tuple[int, ...]:
    """Ids of the first prompt of `first_view`, with `text` as feedback or privileged context if given."""
    return tuple(renderer.prompt_ids(with_feedback(first_view, text) if text is not None else first_view))


def retarget(trace: SeatTrace, prompt_ids: Sequence[int]) -> SeatTrace:
    """The same sampled tokens under another first prompt.

    For a refined episode y1 that was sampled under (x, h), `retarget(trace, trace.plain_prompt)` is y1 under x; for
    distillation, `retarget(trace, prompt_with(renderer, episode.first_view(seat), hint))` is the student's y under
    the teacher's context. Log-probs stay those of the engine under the *original* prompt: whoever needs them under
    the new one scores them again.
    """
    if not trace.segments:
        raise ValueError(f"seat {trace.seat!r} never spoke: there is no first prompt to replace")
    first = trace.segments[0]
    if first.trainable:
        raise ValueError(f"the trace of seat {trace.seat!r} does not begin with a prompt")
    changed = replace(first, ids=tuple(prompt_ids))
    return replace(trace, segments=(changed, *trace.segments[1:]), plain_prompt=None)
