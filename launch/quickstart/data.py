"""Stages a to c: the corpus that the project generates, a tokenizer trained on it, shards read back and verified."""

from __future__ import annotations

from pathlib import Path

from data_tools.config import PrepareConfig
from launch.progress import show
from launch.quickstart.config import PARTS, Folders, QuickstartConfig
from launch.quickstart.pipeline import Summary


def make_corpus(config: QuickstartConfig, folders: Folders) -> Summary:
    """Stories with questions of order 0 to 4 and dialogues; train and held-out parts share no story."""
    from envs.tasks.corpus import write_generated_corpus

    files = write_generated_corpus(folders.corpus("train").parent, config.corpus)
    c = config.corpus
    return {
        "stories": f"{c.stories} + {c.heldout_stories} held out",
        "dialogues": f"{c.dialogues} + {c.heldout_dialogues} held out",
        "text": f"{files['train'].stat().st_size / 1e6:.1f} MB",
    }


def make_tokenizer(config: QuickstartConfig, folders: Folders) -> Summary:
    """A byte-level BPE with ChatML specials, trained on the train part only."""
    from data_tools.rows import read_conversations
    from data_tools.tokenizer import save_tokenizer, texts_of, train_tokenizer

    texts = list(texts_of(read_conversations([folders.corpus("train")])))
    tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size)
    save_tokenizer(tokenizer, folders.tokenizer)
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    return {
        "vocabulary": str(tokenizer.get_vocab_size()),
        "bytes per token": f"{sum(len(t.encode()) for t in texts) / tokens:.2f}",
    }


def make_shards(config: QuickstartConfig, folders: Folders) -> Summary:
    """Both parts rendered, tokenized, masked and packed, then read back and compared with their checksums."""
    from data_tools.prepare import prepare
    from data_tools.verify import verify

    manifests = {}
    for part in PARTS:
        with show(f"preparing {part}") as update:
            manifests[part] = prepare(part_of(config.prepare, part), lambda done, of: update(done, of, "bytes"))
        verify(folders.shard(part), tokenizer=folders.tokenizer)
    train = manifests["train"]
    return {
        "documents": f"{train.documents} + {manifests['heldout'].documents} held out",
        "tokens": f"{train.tokens / 1e6:.2f} M, {train.trained_tokens / train.tokens:.0%} trained",
        "bins": f"{train.pack.bins} of {train.pack.sequence_length} tokens" if train.pack else "none",
        "verified": "yes",
    }


def part_of(train: PrepareConfig, part: str) -> PrepareConfig:
    """The same preparation of another part of the corpus."""
    inputs = tuple(i.model_copy(update={"glob": str(Path(i.glob).with_name(f"{part}.jsonl"))}) for i in train.inputs)
    return train.model_copy(update={"inputs": inputs, "output": train.output.with_name(part)})
