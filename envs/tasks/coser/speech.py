"""A character's message: [thoughts], speech and (actions). Thoughts are for the character alone. Pure."""

from __future__ import annotations


def without_thoughts(text: str) -> str:
    """`text` without what is in square brackets, nested ones included; an open bracket hides the rest."""
    kept, depth = [], 0
    for letter in text:
        if letter == "[":
            depth += 1
        elif letter == "]" and depth:
            depth -= 1
        elif not depth:
            kept.append(letter)
    return "".join(kept).strip()


def public(text: str, name: str) -> str:
    """What the others perceive of a message, without the speaker's name in front."""
    body = text.strip()
    if body.casefold().startswith(f"{name}:".casefold()):
        body = body[len(name) + 1 :]
    return without_thoughts(body)


def first_words(text: str, count: int) -> str:
    """At most `count` words of `text`: no judge is impressed by length."""
    words = text.split()
    return text if len(words) <= count else " ".join(words[:count]) + " …"
