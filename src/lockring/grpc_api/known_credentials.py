"""The credentials that the calls of a connection have shown: each is verified once, since that may be dear."""

from __future__ import annotations

from typing import Final

from lockring.core.access import Grantee

CREDENTIALS_KEPT_MAX: Final = 16
"""Credentials of one connection that are not verified again: those that were verified last."""


class KnownCredentials:
    """The credentials that the calls of one connection have shown, with what each is good for.

    A grantee keeps up with its credential's end and with the rights. Here it is forgotten then, and the credential is
    verified again. What was refused is not kept.
    """

    def __init__(self) -> None:
        self._edition = ""
        self._grantees: dict[str, Grantee] = {}

    def find(self, credential: str, edition: str) -> Grantee | None:
        """Return what a credential is good for, None if it must be verified."""
        if edition != self._edition:
            self._edition = edition
            self._grantees.clear()
        found = self._grantees.get(credential)
        if found is not None and found.is_expired:
            del self._grantees[credential]
            return None
        return found

    def keep(self, credential: str, grantee: Grantee) -> None:
        """Remember a credential that was verified, and forget the oldest if there are too many."""
        if len(self._grantees) >= CREDENTIALS_KEPT_MAX:
            del self._grantees[next(iter(self._grantees))]
        self._grantees[credential] = grantee
