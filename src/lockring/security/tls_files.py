"""The files of one side of TLS, read as a whole: a certificate, its key, and the authorities that are trusted.

Their content is what counts, not their names, numbers or times: Kubernetes swaps a directory's symlink, and other tools
write in place. Three files are never replaced in one step. So what does not fit together is refused, and looked at
again later.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, NamedTuple

from lockring.errors import ConfigError
from lockring.system_errors import reason_of

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""Longest file: a bundle of all public authorities has a quarter of a megabyte."""


class HalfWritten(ConfigError):
    """Files that are cut off or do not fit together, as in the moment in which they are replaced.

    A program never gets this, but a `ConfigError` once it is certain that no replacement is under way.
    """


class TlsPaths(NamedTuple):
    """Where the files are, "" for none.

    Attributes:
        cert: the certificate, with those between it and an authority, in PEM.
        key: its private key, unencrypted, in PEM.
        ca: the authorities whose certificates are accepted, in PEM.
    """

    cert: str = ""
    key: str = ""
    ca: str = ""


class TlsContent(NamedTuple):
    """The content of the files at one moment; empty for those that are not named.

    Attributes:
        cert, key, ca: see `TlsPaths`.
    """

    cert: bytes
    key: bytes
    ca: bytes

    @property
    def edition(self) -> str:
        """A number that changes with any of the three."""
        digest = hashlib.sha256()
        for each in self:
            digest.update(len(each).to_bytes(8, "big"))
            digest.update(each)
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"TlsContent({self.edition[:12]}…)"  # it has a private key


def read_files(paths: TlsPaths) -> TlsContent:
    """Read the files.

    Raises:
        ConfigError: one cannot be read or is too long, or, as `HalfWritten`, is empty.
    """
    return TlsContent(*(_content(path) for path in paths))


def changed_since(paths: TlsPaths, wall_ns: int) -> bool:
    """Return whether one of the files was written, replaced or renamed after a time.

    Their inodes' times are what counts here: unlike a file's own time, no tool that copies files can set them back.

    Args:
        paths: of the files; one that is missing has not changed.
        wall_ns: nanoseconds since 1970.
    """
    for path in filter(None, paths):
        for look in (os.stat, os.lstat):  # the file itself, and the link that may lead to it
            try:
                if look(path).st_ctime_ns > wall_ns:
                    return True
            except (OSError, ValueError):
                continue
    return False


def _content(path: str) -> bytes:
    if not path:
        return b""
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # the second, of a path with a null character
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {FILE_BYTES_MAX // 2**20} MiB, which no certificate is")
    if not data.strip():
        raise HalfWritten(f"{path} is empty")
    return data
