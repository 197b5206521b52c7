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
        ConfigError: the file cannot be read, or it or the variable has no credential that a server could accept. The
            text shows nothing of it.
    """

    def __init__(self, token_file: str | os.PathLike[str] | None = None) -> None:
        named = token_file or os.environ.get(TOKEN_FILE_VARIABLE, "")
        try:
            self._path = os.fsdecode(named)
        except TypeError:
            raise ConfigError(
                f"token_file is the path of a file, not a value of the type {type(named).__name__}"
            ) from None
        self._newest = _read(self._path) if self._path else _checked(os.environ.get(TOKEN_VARIABLE, ""))

    def __call__(self) -> str:
        """Return the credential, "" for none."""
        if self._path:
            try:
                self._newest = _read(self._path)
            except ConfigError:
                # It may be about to be replaced. The servers say so if the former one is not accepted any more.
                return self._newest
        return self._newest


# Most clients have no credential, and need not load the modules of these.


def _read(path: str) -> str:
    from pathlib import Path

    from lockring.security.tokens import check_form, read_credential

    return check_form(read_credential(Path(path)), f"the token file {path}")


def _checked(text: str) -> str:
    if not text.strip():
        return ""
    from lockring.security.tokens import check_credential, check_form

    return check_form(check_credential(text, TOKEN_VARIABLE), TOKEN_VARIABLE)
