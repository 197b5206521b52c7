"""The words of the demo on the terminal: headings, events, and their meaning."""

from __future__ import annotations

import sys
import time
from typing import Final

from lockring.terminals import takes_colour

_WIDTH: Final = 80
_HEADING: Final = "\033[1;36m"
_GOOD: Final = "\033[32m"
_SOFT: Final = "\033[2m"
_PLAIN: Final = "\033[0m"


class Narrator:
    """Prints to standard output.

    Args:
        pace_s: how long a reader gets for each scene, in seconds, beside what happens in it.
    """

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._begun_s = time.monotonic()
        self._number = 0
        self._in_colour = takes_colour(sys.stdout)

    def scene(self, title: str, *words: str) -> None:
        """Begin a scene: its title, and what is about to happen."""
        self._number += 1
        self._print(f"\n{self._number}. {title}", _HEADING)
        for each in words:
            self._print(f"   {each}")
        self.rest()

    def happens(self, text: str) -> None:
        """Say what has just happened, with the time since the beginning."""
        self._print(f"   {time.monotonic() - self._begun_s:6.1f} s  {text}")

    def shows(self, text: str) -> None:
        """Say what a scene has shown."""
        self._print(f"   → {text}", _GOOD)
        self.rest()

    def aside(self, text: str) -> None:
        """Say something beside the story."""
        self._print(f"   {text}", _SOFT)

    def rest(self) -> None:
        """Give the reader time."""
        time.sleep(self._pace_s)

    def _print(self, text: str, colour: str = "") -> None:
        print(f"{colour}{text}{_PLAIN}" if colour and self._in_colour else text, flush=True)
