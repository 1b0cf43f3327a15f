"""BehaviorChain rows: OdysSim's records (a JSON text in `raw`), and the authors' book files. Pure.

A book file has a profile, chapter summaries and `examples`; the first example opens the chain and is not asked. Each
other example gives one row, whose chain so far is the contexts before it, as the authors show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envs.tasks.choice import ChoiceData, answer_text
from envs.tasks.files import field
from envs.tasks.reading import Made, Reader
from envs.tasks.schema import RowData, checked

NAME = "behaviorchain"
SOURCES = (NAME, "behavior_chain")
ASKED = "After this or in response to this, what behavior did {name} take?"
"""The question at the end of the authors' contexts; our prompt asks its own."""
SUMMARY_MARK = "Summary"


class Link(RowData):
    """One earlier step of the chain; the authors' files tell the behaviour inside the next context."""

    context: str
    behavior: str = ""


class Step(ChoiceData):
    """What a character does next."""

    character: str
    profile: str
    history: str
    chain: tuple[Link, ...]
    context: str
    step: int
    """Position in the character's chain, from 0."""


def make(record: Mapping[str, Any], where: str) -> Made:
    """The rows of one record."""
    if "examples" in record:
        yield from _book(record, where)
        return
    options = record.get("options_dict") or field(record, "options", where=where)
    listed = [str(options[k]) for k in sorted(options) if options[k]] if isinstance(options, Mapping) else options
    choices = tuple(str(option) for option in listed)
    chain = [
        Link(context=_text(c, "context"), behavior=_text(c, "behavior")) for c in record.get("prior_chain") or ()
    ]
    if not chain and record.get("prior_chain_text"):
        chain = [Link(context=str(record["prior_chain_text"]))]
    character = str(record.get("persona_name") or "the person described")
    profile = str(field(record, "profile_text", "profile", where=where)).strip()
    values = {
        "character": character,
        "profile": profile,
        "history": _chapters(record.get("history_truncated")) or str(record.get("history_text") or ""),
        "chain": chain,
        "context": str(field(record, "current_context", where=where)),
        "choices": choices,
        "answer": answer_text(str(field(record, "right_option_letter", where=where)).upper(), choices),
        "step": len(chain),
    }
    yield f"{record.get('book') or record.get('title') or ''}: {character}", checked(Step, values, where)


def _book(record: Mapping[str, Any], where: str) -> Iterator[tuple[str, Step]]:
    profile = field(record, "profile", where=where)
    character = str(field(profile, "Name", where=where))
    missing = int(record.get("chapters_len", 0)) - int(record.get("summary_len", 0))
    told = record.get("summary") or []
    history = _chapters(told[: int(record.get("max_index", len(told))) - missing])
    chain: list[Link] = []
    for number, example in enumerate(record["examples"][1:], start=1):
        at = f"{where}, example {number}"
        context = str(field(example, "summary_refined", where=at)).replace(ASKED.format(name=character), "").strip()
        options = field(example, "options_out_of_order", where=at)
        choices = tuple(str(options[letter]) for letter in sorted(options))
        values = {
            "character": character,
            "profile": "\n".join(f"{name}: {value}" for name, value in profile.items()),
            "history": history,
            "chain": tuple(chain),
            "context": context,
            "choices": choices,
            "answer": answer_text(str(field(example, "right_option_index", where=at)).upper(), choices),
            "step": number - 1,
        }
        yield f"{record.get('title', '')}: {character}", checked(Step, values, at)
        chain.append(Link(context=context))


def _chapters(chapters: Any) -> str:
    """Chapter summaries as one text."""
    if not isinstance(chapters, Sequence) or isinstance(chapters, str):
        return ""
    lines = []
    for chapter in chapters:
        if isinstance(chapter, Mapping):
            _, mark, after = str(chapter.get("chapter_content") or "").partition(SUMMARY_MARK)
            text = after if mark else str(chapter.get("chapter_content") or "")
            lines.append(f"{chapter.get('chapter_num') or ''} {text.strip()}".strip())
        elif chapter:
            lines.append(str(chapter).strip())
    return "\n".join(line for line in lines if line)


def _text(link: Mapping[str, Any], name: str) -> str:
    return str(link.get(name) or "").strip()


READ = Reader(NAME, make, SOURCES)
