"""Debian's places for servers' programs that are not on the PATH."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

ZOOKEEPER_JAR: Final = Path("/usr/share/java/zookeeper.jar")


def postgres_programs() -> Path | None:
    """Return the directory of the newest PostgreSQL server's programs, or None without one."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if path.parts[-3].isdigit()]
    if found:
        return max(found, key=lambda path: int(path.parts[-3])).parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).parent
