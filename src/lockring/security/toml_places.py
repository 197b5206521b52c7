"""Where a key of a TOML file stands, for errors: the parser of the standard library does not say.

Tables and keys are found where they are written one to a line, as people write them. Elsewhere there is the file alone.
"""

from __future__ import annotations

import re
from typing import Final

_HEADER: Final = re.compile(r"\s*\[(\[)?\s*([^\[\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*["']?([^"'=\s]+)["']?\s*=""")


class TomlPlaces:
    """The lines of a TOML text by table and key.

    Args:
        path: of the file, for people.
        text: its content.
    """

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines: dict[tuple[str, int, str], int] = {}
        counts: dict[str, int] = {}
        table, index = "", 0
        for number, line in enumerate(text.splitlines(), start=1):
            header = _HEADER.match(line)
            if header is not None:
                table = header[2].strip("\"'")
                index = counts.get(table, 0)
                counts[table] = index + 1
                self._lines.setdefault((table, index, ""), number)
            elif (key := _KEY.match(line)) is not None:
                self._lines.setdefault((table, index, key[1]), number)

    def of(self, table: str, index: int = 0, key: str = "") -> str:
        """Return the place of a key, or of the table if the key is not found, as the beginning of an error.

        Args:
            table: its name, "" for keys outside of tables.
            index: which one of an array of tables, from 0.
            key: "" for the table itself.
        """
        line = self._lines.get((table, index, key)) or self._lines.get((table, index, ""))
        where = self._path if line is None else f"{self._path}, line {line}"
        inside = f" [{table}] {key}".rstrip() if table else f" {key}"
        return f"{where}:{inside}"
