"""The trained tokenizer loads where it must, decodes what it encodes, and is the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import DataError, UsageError
from data_tools.tokenizer import SPECIAL_TOKENS, save_tokenizer, train_tokenizer
from tests.data_tools.conftest import TEXT


@given(st.text())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_decoding_gives_back_the_composed_text(renderer, text):

    ids = renderer.encode_content(text)
    assert all(i < renderer.vocab_size for i in ids)
    decoded = renderer.decode(ids, skip_special=False)
    # The library's NFC tables and Python's may differ on new code points; composing again removes the difference.
    assert unicodedata.normalize("NFC", decoded) == unicodedata.normalize("NFC", text)


def test_training_in_another_process_gives_the_same_bytes(tmp_path):
    program = (
        "from pathlib import Path; import sys\n"
        "from data_tools.tokenizer import *\n"
        "save_tokenizer(train_tokenizer([sys.argv[1]] * 3, 280), Path(sys.argv[2]))"
    )
    for name in ("a", "b"):
        environment = {**os.environ, "PYTHONHASHSEED": str(len(name) + ord(name))}
        command = [sys.executable, "-c", program, TEXT, str(tmp_path / name)]
        subprocess.run(command, check=True, env=environment, timeout=60)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert "tokenizer.json" in files and "tokenizer_config.json" in files
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_transformers_loads_it_with_template_end_of_text_and_padding(tokenizer_dir, renderer):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer_dir)
    assert len(loaded) == renderer.vocab_size
    assert loaded.eos_token == loaded.pad_token == "<|endoftext|>"
    messages = [{"role": "user", "content": "where is the apple"}]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == renderer.render([_Message(**m) for m in messages]).ids + list(renderer.opening_ids("assistant"))


class _Message:
    def __init__(self, role: str, content: str) -> None:
        self.role, self.content = role, content


def test_sizes_that_cannot_be_filled_are_refused(tmp_path):
    with pytest.raises(UsageError, match="at least 259"):
        train_tokenizer(["a"], 100)
    with pytest.raises(DataError, match="fill only"):
        train_tokenizer(["a b"], 5000)
    tokenizer = train_tokenizer([TEXT], 256 + len(SPECIAL_TOKENS))
    save_tokenizer(tokenizer, tmp_path / "t")
    save_tokenizer(tokenizer, tmp_path / "t")
