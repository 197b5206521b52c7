"""The `lockring` command. One module per family of commands, imported when its command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

_EXIT_CONFIG: Final = 78
"""As `exits.CONFIG`, which cannot be counted on here: what it needs may be missing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see `lockring.cli.app.main`.

    The package alone is a client library. Where the packages of its command are missing, one line says what to install.

    Args:
        arguments: what follows the command's name; by default those of this process.

    Returns:
        The exit code, 78 where the packages are missing.
    """
    try:
        from lockring.cli.app import main as run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        print(
            f"lockring: the command line needs the package {error.name}, which is not installed; install lockring[cli], "
            "or lockring[server] to run servers too",
            file=sys.stderr,
        )
        return _EXIT_CONFIG
    return run(arguments)
