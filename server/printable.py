"""Makes text that others wrote safe to print: nothing in it breaks a line, reverses its reading order or is invisible.

server/logs.py applies it to every value of every line, server/statuses.py to the messages that callers see.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """The text with every character escaped that does not print as itself. keep: those that stay, e.g. newlines."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in keep else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return repr(letter)[1:-1]
