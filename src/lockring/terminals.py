"""Output to a terminal: whether to colour it, and text and commands made harmless."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
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


def shell_word(text: str) -> str:
    """Return text as one word of a shell, in characters that a terminal only shows.

    Others, which would act on a terminal into which the word is pasted, are in the form $'…' of bash, ksh and zsh.
    """
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(map(_in_dollar_quotes, text)) + "'"


def command(verb: str, *names: str, options: Sequence[str] = ()) -> str:
    """Return a command of lockring as a shell reads it, to be pasted: a name is a name whatever is in it.

    Args:
        verb: the command.
        names: its arguments.
        options: its options, with their values.
    """
    words = [*names, *options]
    if any(each.startswith("-") for each in names):
        words = [*options, "--", *names]
    return " ".join(map(shell_word, ("lockring", verb, *words)))


def _in_dollar_quotes(character: str) -> str:
    if character in "\\'":
        return "\\" + character
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors="surrogateescape"))
