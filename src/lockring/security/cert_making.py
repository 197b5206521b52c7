"""The way to `certs`, which needs a package of the extra `certs`: without it, an error says which one to install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lockring.errors import ExtraMissing

if TYPE_CHECKING:
    from lockring.security.certs import CertMaker


def cert_maker(directory: Path, *, replace: bool, asked_by: str) -> CertMaker:
    """Return the maker of certificates in a directory.

    Args:
        directory: see `CertMaker`.
        replace: see `CertMaker`.
        asked_by: the command or flag that needs it, for the error.

    Raises:
        ExtraMissing: a package is not installed.
    """
    try:
        from lockring.security.certs import CertMaker
    except ImportError as error:
        raise ExtraMissing(
            f"{asked_by} needs a package that is not installed ({error}): install lockring[certs]"
        ) from error
    return CertMaker(directory, replace=replace)
