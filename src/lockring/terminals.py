"""Whether to colour what is written to a stream."""

from __future__ import annotations

import os
from typing import Final, TextIO

_FORCING: Final = ("FORCE_COLOR", "CLICOLOR_FORCE")


def takes_colour(stream: TextIO) -> bool:
    """Whether to write escape sequences to a stream: by the conventions NO_COLOR, FORCE_COLOR, CLICOLOR and TERM.

    `NO_COLOR` counts more than all others, what forces colour more than the kind of the stream. An empty variable counts as none.
    """
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    if any(environ.get(name, "") not in ("", "0") for name in _FORCING):
        return True
    if environ.get("TERM") == "dumb" or environ.get("CLICOLOR") == "0":
        return False
    return stream.isatty()
