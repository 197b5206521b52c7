"""The credential that a client shows to each server: a token or a JWT, from a file or a variable.

It is never an argument of a command, since all users of a machine see command lines.
"""

from __future__ import annotations

import os
from typing import Final

from lockring.errors import ConfigError

TOKEN_VARIABLE: Final = "LOCKRING_TOKEN"
"""Holds the credential, where no file is named."""

TOKEN_FILE_VARIABLE: Final = "LOCKRING_TOKEN_FILE"
"""Names the file that has it."""


class CredentialSource:
    """Returns the credential at each greeting: a file is read again each time, since it may be replaced.

    Any thread may call it.

    Args:
        token_file: the file, None for what the variables say.

    Raises:
        ConfigError: the file cannot be read, or has no credential.
    """

    def __init__(self, token_file: str | os.PathLike[str] | None = None) -> None:
        named = token_file or os.environ.get(TOKEN_FILE_VARIABLE, "")
        self._path = os.fspath(named)
        self._newest = _read(self._path) if self._path else os.environ.get(TOKEN_VARIABLE, "").strip()

    def __call__(self) -> str:
        """Return the credential, "" for none."""
        if self._path:
            try:
                self._newest = _read(self._path)
            except ConfigError:
                # It may be about to be replaced. The servers say so if the former one is not accepted any more.
                return self._newest
        return self._newest


def _read(path: str) -> str:
    # Most clients have none, and need not load these.
    from pathlib import Path

    from lockring.security.tokens import read_credential

    return read_credential(Path(path))
