"""Files that appear whole or not at all, with the mode that they keep: keys, certificates, tokens, the ACL file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from lockring.errors import InvalidRequest
from lockring.system_errors import reason_of

PRIVATE: Final = 0o600
"""The mode of a file with a secret: its owner alone may read it."""

PUBLIC: Final = 0o644
"""The mode of a file that every user may read."""


def write_whole(path: Path, data: bytes, *, mode: int, replace: bool) -> None:
    """Write a file under another name, then give it its own: a reader finds the old content, or all of the new one.

    Args:
        path: of the file.
        data: its content.
        mode: its permissions, from the first byte on.
        replace: whether a file that is there may be replaced.

    Raises:
        InvalidRequest: there is a file and `replace` is False, or it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)  # the umask may have taken bits away
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename, fails if there is one
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
    except FileExistsError:
        raise InvalidRequest(
            f"{path} exists already, and is not replaced unless --force asks for it"
        ) from None
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {reason_of(error)}") from error
