"""Training a byte-level BPE tokenizer, and writing it as a Hugging Face tokenizer folder.

Same conventions as Qwen: NFC, its split pattern (single digits, contractions, leading-space words), ChatML
specials. The folder (tokenizer.json, tokenizer_config.json, special_tokens_map.json) loads in
`transformers.AutoTokenizer`, SGLang and vLLM. Deterministic: the same texts in the same order give the same bytes.

The end-of-document token is <|endoftext|> (also padding), never <|im_end|>: tools that cut documents at the
tokenizer's eos would otherwise take every turn for a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from common.errors import DataError, UsageError
from common.files import atomic_directory, write_json, write_text
from data_tools.conversation import Conversation

END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML_JINJA = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)
MAX_LENGTH = 1 << 20
MAX_TOKEN_ID = 1 << 31


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of exactly `vocab_size` entries: 256 bytes, merges, and the ChatML specials at the end.

    Raises UsageError when vocab_size is too small, DataError when the texts are too few to fill it.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UsageError(f"vocabulary of {vocab_size} entries", fix=f"give at least {MIN_VOCAB_SIZE}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        # Sorted: the library returns the alphabet in hash order.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
    if tokenizer.get_vocab_size() != vocab_size:
        raise DataError(
            f"the texts fill only {tokenizer.get_vocab_size()} of {vocab_size} vocabulary entries",
            fix="train on more text or ask for a smaller vocabulary",
        )
    return tokenizer


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder. Raises DataError."""
    path, fix = folder / "tokenizer.json", "give a Hugging Face tokenizer folder"
    if not path.is_file():
        raise DataError("no tokenizer.json", where=str(folder), fix=fix)
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises nothing narrower
        raise DataError(f"not a tokenizer: {e}", where=str(path), fix=fix) from e
    if any(ident >= MAX_TOKEN_ID for ident in tokenizer.get_vocab().values()):
        raise DataError("token ids beyond 31 bits", where=str(path), fix=fix)
    return tokenizer


def texts_of(conversations: Iterable[Conversation]) -> Iterator[str]:
    """Message contents, as tokenizer training wants them."""
    for conversation in conversations:
        for message in conversation.messages:
            yield message.content


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, chat_template: str = CHATML_JINJA) -> None:
    """Write the tokenizer folder; it appears whole or not at all, and replaces an older one."""
    with atomic_directory(folder) as temporary:
        write_text(temporary / "tokenizer.json", tokenizer.to_str(pretty=True))
        write_text(temporary / "chat_template.jinja", chat_template)
        write_json(temporary / "tokenizer_config.json", _config(tokenizer, chat_template))
        write_json(
            temporary / "special_tokens_map.json",
            {
                "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
                "eos_token": END_OF_TEXT,
                "pad_token": END_OF_TEXT,
            },
        )


def _config(tokenizer: Tokenizer, chat_template: str) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "added_tokens_decoder": {str(tokenizer.token_to_id(t)): {"content": t, **flags} for t in SPECIAL_TOKENS},
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "chat_template": chat_template,
    }
