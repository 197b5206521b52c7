"""The keys that are typed, made of the bytes that a terminal sends. No I/O.

A key is a character, or one of the names below. An escape sequence may come in parts, so one that is not complete waits
for the rest; the escape key sends the first byte of one, and counts once nothing follows.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

ENTER: Final = "enter"
ESCAPE: Final = "escape"
BACKSPACE: Final = "backspace"
CLEAR: Final = "clear"
UP: Final = "up"
DOWN: Final = "down"
PAGE_UP: Final = "page up"
PAGE_DOWN: Final = "page down"
HOME: Final = "home"
END: Final = "end"
REDRAW: Final = "redraw"

_SEQUENCES: Final = {
    "[A": UP,
    "OA": UP,
    "[B": DOWN,
    "OB": DOWN,
    "[5~": PAGE_UP,
    "[6~": PAGE_DOWN,
    "[H": HOME,
    "OH": HOME,
    "[1~": HOME,
    "[F": END,
    "OF": END,
    "[4~": END,
}
_CONTROLS: Final = {
    "\r": ENTER,
    "\n": ENTER,
    "\x7f": BACKSPACE,
    "\x08": BACKSPACE,
    "\x15": CLEAR,
    "\x0c": REDRAW,
}
_SEQUENCE: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O[ -~])")
_START: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*|O)?\Z")
_START_LENGTH_MAX: Final = 32
"""A sequence that is longer is none."""


class KeyReader:
    """Makes keys of bytes. Not safe for use by several threads."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the start of a sequence waits for its rest."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that these bytes complete."""
        text, self._rest = self._rest + self._decoder.decode(data), ""
        keys: list[str] = []
        place = 0
        while place < len(text):
            found = _SEQUENCE.match(text, place)
            if found is not None:
                key = _SEQUENCES.get(found[1])  # the others are keys that mean nothing here
                keys += [key] if key is not None else []
                place = found.end()
            elif _START.match(text, place) and len(text) - place <= _START_LENGTH_MAX:
                self._rest = text[place:]
                break
            else:
                keys += _plain(text[place])
                place += 1
        return keys

    def flush(self) -> list[str]:
        """Return the keys of the start of a sequence whose rest has not come."""
        rest, self._rest = self._rest, ""
        return [key for each in rest for key in _plain(each)]


def _plain(character: str) -> list[str]:
    if character == "\x1b":
        return [ESCAPE]
    if character in _CONTROLS:
        return [_CONTROLS[character]]
    return [character] if character.isprintable() else []
