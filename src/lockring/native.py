"""Text that the operating system hands over: its bytes read as UTF-8, whatever the locale says.

Arguments, variables, file names, user and host names are bytes. Python decodes them by the locale, so that the same bytes are
one text in a terminal and another one in a cron job. What names a lock must not depend on that:

1. Text from the system that names or labels something is `from_native(text)`: its bytes as UTF-8. Bytes that are no UTF-8 are kept
   as lone surrogates, which the checks of `lockring.names` and `lockring.config` refuse.
2. Text that names a file goes back to the system as `to_native(text)`: the same bytes.
3. The bytes count, and nothing is normalized: "é" as one code point and as two are different names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def from_native(text: str) -> str:
    """Text that Python decoded by the locale, such as an argument, as the UTF-8 that its bytes are."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def to_native(text: str) -> str:
    """The reverse: text whose UTF-8 names a file, as Python's file functions take it.

    Raises:
        UnicodeEncodeError: it has a lone surrogate that stands for no byte.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def variables(prefix: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the environment whose name starts with `prefix`, their values read as UTF-8."""
    found = os.environ if environ is None else environ
    return {name: from_native(value) for name, value in found.items() if name.startswith(prefix)}
