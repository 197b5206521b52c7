"""Output to a terminal: whether to colour it, and text made harmless."""

from __future__ import annotations

import os
from typing import Final, TextIO

_FORCING: Final = ("FORCE_COLOR", "CLICOLOR_FORCE")


def takes_colour(stream: TextIO) -> bool:
    """Return whether to write escape sequences to a stream, by NO_COLOR, FORCE_COLOR, CLICOLOR and TERM.

    `NO_COLOR` wins over all others; a variable that forces colour wins over the kind of the stream.
    An empty variable counts as unset.
    """
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "") not in ("", "0") for name in _FORCING):
        return True
    if environ.get("TERM") == "dumb" or environ.get("CLICOLOR") == "0":
        return False
    return stream.isatty()


def shown(text: str) -> str:
    """Return text from elsewhere, such as a lock's name, with characters that a terminal could act on as escapes."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
