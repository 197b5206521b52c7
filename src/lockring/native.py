"""Text from the operating system: its bytes read as UTF-8, whatever the locale says.

Arguments, variables, file names, user and host names are bytes. Python decodes them by the locale, so the same bytes
are one text in a terminal and another in a cron job. The name of a lock must not depend on that:

1. Text from the system that names or labels a thing is `from_native(text)`: its bytes as UTF-8. Bytes that are not
   UTF-8 become lone surrogates, which the checks in `lockring.names` and `lockring.config` refuse.
2. Text that names a file goes back to the system as `to_native(text)`: the same bytes.
3. The bytes count. Nothing is normalized: "é" as one code point and as two are different names.
"""

from __future__ import annotations

import os
from collections.abc import Mapping


def from_native(text: str) -> str:
    """Decode text that Python decoded by the locale, such as an argument, again as UTF-8."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def to_native(text: str) -> str:
    """Reverse `from_native`: return a file's name as Python's file functions take it.

    Raises:
        UnicodeEncodeError: it has a lone surrogate that does not stand for a byte.
    """
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def variables(prefix: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables whose names start with `prefix`, with their values read as UTF-8."""
    found = os.environ if environ is None else environ
    return {name: from_native(value) for name, value in found.items() if name.startswith(prefix)}
