"""The one append-only chat renderer, shared by data preparation, environments and RL.

Invariants (tests/data_tools/test_renderer.py):
* rendering the first n messages is a prefix, token for token, of rendering n+1: every message is rendered by
  itself, `opening(role) + content + closing`, and the pieces are concatenated;
* special-token text inside content never becomes a control token: content is encoded as plain text;
* trained tokens are the content of trained roles and its end token, never a role header or the newline after.

Content is encoded by itself, so a boundary of tokens lies where an engine starts to sample. Where content begins with
a newline, encoding the whole text at once would merge it with the header's newline; that is the only difference from
the tokenizer's own append-only template.

Templates that rewrite history (Qwen3's hybrid thinking) are rendered in this append-only form.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tokenizers import Tokenizer

from common.errors import DataError
from common.files import hash_json
from data_tools.conversation import ROLES
from data_tools.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from data_tools.content import ContentEncoder

RENDERER_VERSION = 1
_ROLE_CODE: dict[str, int] = {role: code for code, role in enumerate(ROLES)}


class MessageLike(Protocol):
    """Anything with a role and a content."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...


@dataclass(frozen=True)
class Template:
    """How a family marks turns. `{role}` stands for the role's name in `opening`."""

    name: str
    prefix: str
    """Once, before the first message."""
    opening: str
    end: str
    """The end token; sampled by the model, trained."""
    closing: str
    """After the end token; not trained."""


CHATML = Template("chatml", prefix="", opening="<|im_start|>{role}\n", end="<|im_end|>", closing="\n")
LLAMA3 = Template(
    "llama3",
    prefix="<|begin_of_text|>",
    opening="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    closing="",
)
TEMPLATES = {t.name: t for t in (CHATML, LLAMA3)}


@dataclass(frozen=True)
class Rendered:
    """Token ids of a conversation, and per token: is it trained, and which role (index into ROLES) it is."""

    ids: list[int]
    train: list[bool]
    roles: list[int]


class Renderer:
    """Renders messages with one tokenizer and one template. Immutable; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer, template: Template, *, owned: bool = False, live: bool = False) -> None:
        """owned: nobody else uses the tokenizer, so that it need not be copied (a second for large vocabularies).

        live: for conversations under way, whose messages are encoded one by one as they come (content.py).
        """
        self.template = template

        def control(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

        end_ids = control(template.end)
        if len(end_ids) != 1:
            raise DataError(
                f"{template.end!r} is not one token",
                where="tokenizer",
                fix=f"use a tokenizer with the special tokens of the {template.name} template",
            )
        self.end_id: int = end_ids[0]
        self.prefix_ids: tuple[int, ...] = control(template.prefix)
        self.closing_ids: tuple[int, ...] = control(template.closing)
        self._openings: dict[str, tuple[int, ...]] = {r: control(template.opening.format(role=r)) for r in ROLES}
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        # From here on special-token text is ordinary text: `plain` encodes content.
        self.plain = tokenizer if owned else Tokenizer.from_str(tokenizer.to_str())
        self.plain.encode_special_tokens = True
        self._live: ContentEncoder | None = None
        if live:
            from data_tools.content import ContentEncoder

            self._live = ContentEncoder(self.plain)

    @classmethod
    def load(cls, tokenizer_dir: Path, template: str | None = None, *, live: bool = False) -> Renderer:
        """From a Hugging Face tokenizer folder; the template is recognised by its special tokens unless given.

        live: see `__init__`.
        """
        tokenizer = open_tokenizer(tokenizer_dir)
        if template is not None and template not in TEMPLATES:
            raise DataError(f"unknown template {template!r}", fix=f"one of {', '.join(TEMPLATES)}")
        chosen = TEMPLATES[template] if template else recognise_template(tokenizer)
        return cls(tokenizer, chosen, owned=True, live=live)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever any rendering could change: tokenizer content, template, renderer version."""
        return hash_json({"tokenizer": self.plain.to_str(), "template": self.template.name, "v": RENDERER_VERSION})

    def opening_ids(self, role: str) -> tuple[int, ...]:
        """The role header, also the generation prompt of that role."""
        return self._openings[role]

    def encode_content(self, text: str) -> list[int]:
        """Plain text to ids; special-token text stays text."""
        if self._live is not None:
            return self._live.encode(text)
        return self.plain.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Ids to text."""
        return self.plain.decode(list(ids), skip_special_tokens=skip_special)

    def message_ids(self, message: MessageLike) -> list[int]:
        """One whole message: header, content, end token, closing."""
        content = self.encode_content(message.content)
        return [*self._openings[message.role], *content, self.end_id, *self.closing_ids]

    def render(self, messages: Sequence[MessageLike], *, trained_roles: Collection[str] = ("assistant",)) -> Rendered:
        """The whole conversation with its loss mask."""
        ids = list(self.prefix_ids)
        train = [False] * len(ids)
        roles = [0] * len(ids)
        for message in messages:
            opening, content = self._openings[message.role], self.encode_content(message.content)
            trained = message.role in trained_roles
            ids += [*opening, *content, self.end_id, *self.closing_ids]
            train += [False] * len(opening) + [trained] * (len(content) + 1) + [False] * len(self.closing_ids)
            roles += [_ROLE_CODE[message.role]] * (len(ids) - len(roles))
        return Rendered(ids, train, roles)

    def prompt_ids(self, messages: Sequence[MessageLike], role: str = "assistant") -> list[int]:
        """Everything an engine needs to sample the next turn of `role`."""
        return [*self.render(messages, trained_roles=()).ids, *self._openings[role]]


def recognise_template(tokenizer: Tokenizer) -> Template:
    """The template whose end token this tokenizer knows."""
    for template in TEMPLATES.values():
        if tokenizer.token_to_id(template.end) is not None:
            return template
    raise DataError(
        "no known chat template fits this tokenizer",
        where="tokenizer",
        fix=f"add the special tokens of one of {', '.join(TEMPLATES)}, or give --template",
    )
