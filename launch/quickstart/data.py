"""Stages a to c: the corpus that the project generates, a tokenizer trained on it, shards read back and verified."""

from __future__ import annotations

from pathlib import Path

from launch.quickstart.config import QuickstartConfig
from launch.quickstart.pipeline import Summary


def make_corpus(config: QuickstartConfig, folder: Path) -> Summary:
    """Stories with questions of order 0 to 4 and dialogues; train and held-out parts share no story."""
    from envs.tasks.corpus import write_generated_corpus

    files = write_generated_corpus(folder, config.corpus)
    sizes = {part: sum(path.stat().st_size for path in [path]) for part, path in files.items()}
    c = config.corpus
    return {
        "stories": f"{c.stories} + {c.heldout_stories} held out",
        "dialogues": f"{c.dialogues} + {c.heldout_dialogues} held out",
        "text": f"{sizes['train'] / 1e6:.1f} MB",
    }


def make_tokenizer(config: QuickstartConfig, corpus: Path, folder: Path) -> Summary:
    """A byte-level BPE with ChatML specials, trained on the train part only."""
    from data_tools.rows import read_conversations
    from data_tools.tokenizer import save_tokenizer, texts_of, train_tokenizer

    texts = list(texts_of(read_conversations([corpus / "train.jsonl"])))
    tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size)
    save_tokenizer(tokenizer, folder / "hf")
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    return {
        "vocabulary": str(tokenizer.get_vocab_size()),
        "bytes per token": f"{sum(len(t.encode()) for t in texts) / tokens:.2f}",
    }
