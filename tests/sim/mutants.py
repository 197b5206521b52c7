"""Rules switched off, to see that the checkers notice."""

from __future__ import annotations
