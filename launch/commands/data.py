"""`osim data …`: corpora to indexed shards and back."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launch.commands.corpora import add_corpus_commands
from launch.commands.options import Overrides, example, say

if TYPE_CHECKING:
    from data_tools.renderer import Renderer
    from data_tools.shards import Shard

app = typer.Typer()
group = typer.Typer(no_args_is_help=True)
app.add_typer(group, name="data", help="Corpora to indexed shards and back: prepare, inspect, verify, merge, pack …")
Prefix = Annotated[Path, typer.Argument(help="PREFIX of the shard's files.", show_default=False)]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="Hugging Face tokenizer folder.", show_default=False)
]
PREPARE = "launch/recipes/quickstart/prepare.yaml"


@group.command(
    **example(
        "osim data prepare -i 'corpus/*.parquet' -i 'chat.jsonl.zst:0.5' --tokenizer Qwen3-8B \\",
        "    --output data/train --sequence-length 8192 --workers 8",
        f"osim data prepare --recipe {PREPARE} -i runs/quickstart/corpus/train.jsonl \\",
        "    --tokenizer runs/quickstart/tokenizer/hf --output data/train",
    )
)
def prepare(
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="YAML recipe; flags come on top.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="GLOB or GLOB:RATIO of corpus files; repeat it.", show_default=False),
    ] = None,
    tokenizer: TokenizerOption = None,
    output: Annotated[Path | None, typer.Option(help="PREFIX of the files to write.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; the output is the same.", show_default="1")] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Pack to bins of so many tokens.", show_default="no packing")
    ] = None,
    routing: Annotated[
        Path | None, typer.Option(help="YAML of further sources: NAME: {swap: true}.", show_default=False)
    ] = None,
    on_long: Annotated[
        str | None, typer.Option(help="Rows over the sequence length: truncate, split or drop.", show_default="drop")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Corpus files to one shard: rendered, tokenized, masked, packed. A killed run resumes to the same bytes."""
    from common.config import merge as merged
    from common.config import parse_override, read_recipe, read_yaml, validate
    from data_tools.config import PrepareConfig
    from data_tools.prepare import prepare as run
    from launch.progress import show

    flags = {
        "inputs": [_input(text) for text in inputs or ()] or None,
        "tokenizer": tokenizer,
        "output": output,
        "workers": workers,
        "sequence_length": sequence_length,
        "sources": read_yaml(routing) if routing else None,
        "on_long": on_long,
    }
    raw = merged(read_recipe(recipe) if recipe else {}, {k: v for k, v in flags.items() if v is not None})
    for text in overrides or ():
        raw = merged(raw, parse_override(text))
    config = validate(PrepareConfig, raw, where=str(recipe) if recipe else "command line")
    with show("bytes") as update:
        made = run(config, lambda done, total: update(done, total, ""))
    say(f"{config.output}: {made.documents} documents, {made.tokens} tokens, {made.trained_tokens} trained")
    if made.pack:
        say(f"packed into {made.pack.bins} bins of {made.pack.sequence_length}, {made.pack.fill:.1%} full")


def _input(text: str) -> dict[str, object]:
    """GLOB or GLOB:RATIO."""
    glob, colon, ratio = text.rpartition(":")
    try:
        return {"glob": glob, "ratio": float(ratio)} if colon else {"glob": text}
    except ValueError:
        return {"glob": text}


@group.command(**example("osim data inspect runs/quickstart/shards/train --document 0"))
def inspect(
    prefix: Prefix,
    document: Annotated[int | None, typer.Option(help="Show this document with its loss mask.", min=0)] = None,
    tokenizer: TokenizerOption = None,
) -> None:
    """Documents, tokens and trained share per source, lengths, and single documents with the mask laid over them."""
    from common.errors import UsageError
    from data_tools.inspect import length_histogram, statistics
    from data_tools.renderer import Renderer
    from data_tools.shards import Shard

    shard = Shard.open(prefix)
    if document is None:
        for s in statistics(shard):
            say(
                f"{s.source}: {s.documents} documents of {s.rows} rows, {s.tokens} tokens, "
                f"{s.trained_tokens / max(1, s.tokens):.1%} trained, length mean {s.mean_length:.0f} "
                f"p99 {s.p99_length} longest {s.longest}, {s.dropped} dropped, {s.cut} cut"
            )
        histogram = length_histogram(shard)
        for edge, count in zip(histogram.edges, histogram.documents, strict=False):
            say(f"  from {edge:>7} tokens: {count}")
        return
    if document >= len(shard):
        raise UsageError(f"there are {len(shard)} documents", where=str(prefix), fix="give a smaller --document")
    folder = tokenizer or Path(shard.manifest.tokenizer.folder)
    _show_document(shard, Renderer.load(folder, shard.manifest.tokenizer.template), document)


def _show_document(shard: Shard, renderer: Renderer, document: int) -> None:
    """One document with its loss mask: in colours at a terminal, between » and « elsewhere."""
    from rich.console import Console
    from rich.text import Text

    from common.text import printable
    from data_tools.inspect import spans

    console = Console(highlight=False, soft_wrap=True)
    colours = console.color_system is not None
    legend = "green" if colours else "between » and «"
    console.print(Text(printable(f"document {document}, source {shard.source(document)}; trained text is {legend}")))
    shown = Text()
    for trained, run in groupby(spans(shard, renderer, document), key=lambda span: span.trained):
        if trained:
            text = printable("".join(span.text for span in run))
            shown.append(text if colours else f"»{text}«", "bold green")
        else:
            for span in run:
                shown.append(printable(span.text), "dim cyan" if span.kind == "header" else "")
    console.print(shown)


@group.command(**example("osim data verify runs/quickstart/shards/train --tokenizer runs/quickstart/tokenizer/hf"))
def verify(prefix: Prefix, tokenizer: TokenizerOption = None) -> None:
    """Read every byte: checksums, index, ids, masks, counts, packing; with a tokenizer, the round trip too."""
    from data_tools.verify import verify as run

    for check in run(prefix, tokenizer=tokenizer).checks:
        say(f"✓ {check}")


@group.command(**example("osim data merge data/part0 data/part1 --output data/train"))
def merge(
    prefixes: Annotated[list[Path], typer.Argument(help="PREFIXes of the shards.", show_default=False)],
    output: Annotated[Path, typer.Option(help="PREFIX of the joined shard.", show_default=False)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Join shards of one tokenizer and packing, in the given order."""
    from data_tools.merge import merge as run

    made = run(prefixes, output, overwrite=overwrite)
    say(f"{output}: {made.documents} documents, {made.tokens} tokens")


@group.command(**example("osim data pack runs/quickstart/shards/train --sequence-length 2048"))
def pack(
    prefix: Prefix,
    sequence_length: Annotated[int, typer.Option(help="Tokens per bin.", min=16, show_default=False)],
    seed: Annotated[int, typer.Option(help="Of the packing.")] = 0,
    drop_long: Annotated[bool, typer.Option("--drop-long", help="Leave out what is longer than a bin.")] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weight", help="SOURCE=SHARE of the tokens; repeat it for every source.", show_default=False),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="In all; with --weight.", show_default="no document twice")
    ] = None,
) -> None:
    """Pack a shard anew; nothing is tokenized again."""
    from common.config import validate
    from data_tools.config import MixtureConfig
    from data_tools.publish import PackSettings
    from data_tools.repack import repack

    mixture = None
    if weights or tokens:
        shares = dict(text.rpartition("=")[::2] for text in weights or ())
        mixture = validate(MixtureConfig, {"weights": shares, "tokens": tokens}, where="--weight")
    settings = PackSettings(sequence_length, seed, mixture=mixture)
    made = repack(prefix, settings, on_long="drop" if drop_long else "stop")
    if made.pack:
        say(f"{prefix}: {made.pack.bins} bins of {sequence_length}, {made.pack.fill:.1%} full")
        for source, count in made.pack.tokens.items() if mixture else ():
            say(f"  {source}: {count} tokens")


add_corpus_commands(group)
