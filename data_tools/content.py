"""Content of one message to ids, for conversations that grow message by message: the fast library, watched.

There is no batch here to spread the reference's cost over: it takes 20 to 90 microseconds a message, the fast library
2. What is trusted is what is checked (selfcheck.py): adversarial text at the start, and one text in RECHECK_EVERY
by both. At the first difference the reference takes over, with a warning; ids handed out before stay as they were,
and no invariant rests on them: an episode records the ids that its engine saw.
"""

from __future__ import annotations

import itertools
import logging

from tokenizers import Tokenizer

from data_tools.encoding import FastokensEncoder, HFEncoder
from data_tools.selfcheck import adversarial_texts, first_difference

logger = logging.getLogger(__name__)
RECHECK_EVERY = 64


class ContentEncoder:
    """`plain` reads special-token text as ordinary text (Renderer.plain). Safe to share between threads."""

    def __init__(self, plain: Tokenizer) -> None:
        self._plain = plain
        self._fast: FastokensEncoder | None = FastokensEncoder(plain)
        self._calls = itertools.count(1)
        specials = [token.content for token in plain.get_added_tokens_decoder().values()]
        different = first_difference(self._fast, HFEncoder(plain), adversarial_texts(specials))
        if different is not None:
            self._give_up(different)

    @property
    def backend(self) -> str:
        """Which library encodes now."""
        return "hf" if self._fast is None else self._fast.name

    def encode(self, text: str) -> list[int]:
        """Plain text to ids."""
        fast = self._fast
        if fast is None:
            return self._reference(text)
        ids = fast.encode_one(text)
        if next(self._calls) % RECHECK_EVERY == 0 and ids != (expected := self._reference(text)):
            self._give_up(text)
            return expected
        return ids

    def _reference(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def _give_up(self, text: str) -> None:
        self._fast = None
        logger.warning(
            "fastokens and Hugging Face tokenizers differ on %r…: the latter encode from here on", text[:60]
        )
