"""Tokens: `lr_ID_SECRET`, which a client shows, and whose SHA-256 a server keeps.

The secret is 43 characters for 256 random bits, so no slow hash is needed: there is nothing to guess. The beginning
lets scanners find a token that was published by mistake. The hash is that of the whole token:
`printf %s "$TOKEN" | sha256sum`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from lockring.errors import ConfigError, InvalidRequest, Unauthenticated
from lockring.system_errors import reason_of

TOKEN_PREFIX: Final = "lr_"
SECRET_CHARS: Final = 43
CREDENTIAL_BYTES_MAX: Final = 12 * 1024
"""Longest token or JWT that is shown or looked at. The rest of a hello has room beside it, within its own limit."""

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SECRET: Final = re.compile(rf"[A-Za-z0-9_-]{{{SECRET_CHARS}}}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_NO_HASH: Final = bytes(32)
_WHITE_BYTES_MAX: Final = 1024
"""How much white space a file may have around its credential."""


class TokenEntry(NamedTuple):
    """A token as a server knows it.

    Attributes:
        id: its id, which logs show.
        hashes: SHA-256 of the tokens that are accepted: two while one replaces the other.
        expires_s: when it ends, in seconds since 1970; None for never.
    """

    id: str
    hashes: tuple[bytes, ...]
    expires_s: float | None = None


class TokenProof(NamedTuple):
    """A token that was accepted.

    Attributes:
        entry: what the server knows of it.
        hash: the hash by which it was accepted.
    """

    entry: TokenEntry
    hash: bytes


def check_token_id(token_id: str) -> str:
    """Return the id if a token may have it.

    Raises:
        InvalidRequest: it is malformed.
    """
    if not _ID.fullmatch(token_id):
        raise InvalidRequest(
            f"invalid token id {token_id!r}: use 1 to 63 letters, digits, '.', '-' or '_', starting with a letter or digit"
        )
    return token_id


def new_token(token_id: str) -> str:
    """Draw a token.

    Raises:
        InvalidRequest: the id is malformed.
    """
    return f"{TOKEN_PREFIX}{check_token_id(token_id)}_{secrets.token_urlsafe(32)}"


def hash_of(token: str) -> bytes:
    """Return the hash of a token, as it is kept."""
    return hashlib.sha256(token.encode()).digest()


def parse_hash(text: str) -> bytes:
    """Return the hash that a text writes in hexadecimal.

    Raises:
        InvalidRequest: it is malformed.
    """
    if not _HASH.fullmatch(text):
        raise InvalidRequest(
            "a SHA-256 is written as 64 digits from 0 to 9 and a to f; lockring token create prints it"
        )
    return bytes.fromhex(text)


def is_token(credential: str) -> bool:
    """Return whether a credential is meant as a token, right or wrong."""
    return credential.startswith(TOKEN_PREFIX)


def id_of_token(token: str) -> str:
    """Return the id in a token.

    Raises:
        Unauthenticated: it is malformed. The text shows nothing of it.
    """
    head, secret = token[:-SECRET_CHARS], token[-SECRET_CHARS:]
    token_id = head.removeprefix(TOKEN_PREFIX).removesuffix("_")
    if head != f"{TOKEN_PREFIX}{token_id}_" or not _ID.fullmatch(token_id) or not _SECRET.fullmatch(secret):
        raise Unauthenticated(
            f"the token is malformed: one reads {TOKEN_PREFIX}ID_ and {SECRET_CHARS} characters; was it cut off?"
        )
    return token_id


class TokenBook:
    """All tokens that a server knows. Immutable, so that threads may share it.

    Args:
        entries: each with an id of its own.
    """

    def __init__(self, entries: Iterable[TokenEntry] = ()) -> None:
        self.by_id = {each.id: each for each in entries}

    def check(self, token: str, *, wall_s: float) -> TokenProof:
        """Return what is known of a token that a client has shown.

        Args:
            token: the token.
            wall_s: the time, in seconds since 1970.

        Raises:
            Unauthenticated: it is malformed, unknown or expired. The text shows its id at most.
        """
        token_id = id_of_token(token)
        shown = hash_of(token)
        entry = self.by_id.get(token_id)
        # An unknown id takes as long as a wrong secret, and is refused in the same words.
        known = (_NO_HASH,) if entry is None else entry.hashes
        found = [each for each in known if hmac.compare_digest(each, shown)]
        if entry is None or not found:
            raise Unauthenticated(
                f"the token {token_id} is not known here: its id or its secret is wrong, or it was removed"
            )
        if entry.expires_s is not None and wall_s >= entry.expires_s:
            raise Unauthenticated(f"the token {token_id} has expired; ask for a new one")
        return TokenProof(entry, found[0])

    def is_accepted(self, proof: TokenProof) -> bool:
        """Return whether a token that was accepted earlier would be accepted now, but for its time."""
        entry = self.by_id.get(proof.entry.id)
        return entry is not None and proof.hash in entry.hashes


def read_credential(path: Path) -> str:
    """Return the token or JWT in a file, without the line's end.

    Raises:
        ConfigError: it cannot be read, is empty or too long, or has several lines. The text shows nothing of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(CREDENTIAL_BYTES_MAX + _WHITE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # the second, of a path with a null character
        if _is_like_credential(path.name):
            raise ConfigError(
                "a token is given in the place of the name of its file, where other users can see it: replace it, write the"
                " new one into a file and name that, or put it into LOCKRING_TOKEN"
            ) from None
        raise ConfigError(f"the token file {path} cannot be read: {reason_of(error)}") from None
    return check_credential(data.decode("utf-8", "replace"), f"the token file {path}")


def check_credential(text: str, place: str) -> str:
    """Return the credential in a text, without the white space around it, if it could be sent to a server.

    Args:
        text: of a file or a variable.
        place: names that, as the subject of the error's sentence.

    Raises:
        ConfigError: it is empty, too long, or no single word of printable ASCII. The text shows nothing of it.
    """
    found = text.strip()
    if not found:
        raise ConfigError(f"{place} has no token; it has one line, as lockring token create writes it")
    if len(found) > CREDENTIAL_BYTES_MAX:
        raise ConfigError(f"{place} is too long: a token or JWT has at most {CREDENTIAL_BYTES_MAX:,} bytes")
    if len(found.split()) != 1:
        raise ConfigError(
            f"{place} has no token but several words; it has one line, as lockring token create writes it"
        )
    if not found.isascii() or not found.isprintable():
        raise ConfigError(f"{place} has a character that is in no token and no JWT; was it damaged?")
    return found


def check_form(credential: str, place: str) -> str:
    """Return a credential if it has the form of a token or a JWT, so that a server can accept it.

    Args:
        credential: see `check_credential`.
        place: as there.

    Raises:
        ConfigError: it has neither form. The text shows nothing of it.
    """
    if is_token(credential):
        try:
            id_of_token(credential)
        except Unauthenticated as error:
            raise ConfigError(f"{place} is of no use: {error}") from None
    elif not _JWT.fullmatch(credential):
        raise ConfigError(
            f"{place} has neither a token of lockring, which begins with {TOKEN_PREFIX}, nor a JWT, which has three parts"
            " between dots"
        )
    return credential


def _is_like_credential(text: str) -> bool:
    return is_token(text) or _JWT.fullmatch(text) is not None
