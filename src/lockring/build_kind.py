"""Which build of lockring runs in this process: one with its hot modules compiled, or one that is interpreted."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from typing import Final

from lockring import units
from lockring._version import __version__

COMPILED: Final = "compiled"
INTERPRETED: Final = "interpreted"

VERSION: Final = __version__
"""The version of lockring in this process."""

# All of the hot modules are compiled, or none: they are one library.
BUILD: Final = COMPILED if units.__file__.endswith(tuple(EXTENSION_SUFFIXES)) else INTERPRETED
"""The build, as `lockring version` and `lockring status` show it."""
