"""The place of a cluster's state in etcd, and the way there, as a URL gives them.

`etcd://[USER[:PASSWORD]@]HOST[:PORT],…[/PREFIX][?password_file=FILE]`, or `etcds://` for TLS.
That also takes `ca=FILE` (without it, the well-known authorities count), and `cert=FILE&key=FILE` for a certificate of
the coordinator's own.

- *A password is never shown.* Errors, logs and `repr` name the place without it. A command line shows it to everyone on
  the machine, so it may also come from a file, or from the environment.
- *A password's file is read at each use*, so that it may change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lockring.addresses import format_address, split_address
from lockring.errors import InvalidRequest, StoreError
from lockring.system_errors import reason_of

PORT: Final = 2379
PREFIX: Final = "lockring"
PREFIX_MAX: Final = 200
PASSWORD_VARIABLE: Final = "LOCKRING_STORE_PASSWORD"
"""Holds the password, where the URL has none."""
PASSWORD_FILE_VARIABLE: Final = "LOCKRING_STORE_PASSWORD_FILE"
"""Names a file that holds it."""

_FORM: Final = "etcd://[USER@]HOST[:PORT],…[/PREFIX]"
_OF_TLS: Final = ("ca", "cert", "key")
_PASSWORD_FILE: Final = "password_file"


@dataclass(frozen=True)
class TlsFiles:
    """Files for TLS, "" for none.

    Attributes:
        ca: certificates of the authorities that are trusted.
        cert: the coordinator's certificate, with those between it and an authority.
        key: the private key of that.
    """

    ca: str
    cert: str
    key: str


@dataclass(frozen=True)
class EtcdPlace:
    """A place in etcd.

    Attributes:
        endpoints: HOST:PORT of members, in the order in which they are tried.
        prefix: what the names of all keys begin with, before a slash.
        user: the name of the user, "" for none.
        tls: files for TLS, None for a connection in the clear.
        shown: the URL for people.
    """

    endpoints: tuple[str, ...]
    prefix: str
    user: str
    tls: TlsFiles | None
    shown: str
    _password: str = field(default="", repr=False)
    _password_file: str = ""

    def password(self) -> str:
        """Return the password.

        Raises:
            StoreError: its file cannot be read.
        """
        if not self._password_file:
            return self._password
        try:
            return Path(self._password_file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"the password for {self.shown} cannot be read from {self._password_file}: {reason_of(error)}"
            ) from error


def parse(url: str, environ: Mapping[str, str] = os.environ) -> EtcdPlace:
    """Return the place that a URL names.

    Args:
        url: see above.
        environ: the environment's variables.

    Raises:
        StoreError: it is malformed; the text does not show the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # The error's text has a part of the URL, which may be the password.
        raise StoreError(f"the URL of the store is malformed; expected {_FORM}") from None
    if parts.scheme not in ("etcd", "etcds") or parts.fragment:
        raise StoreError(f"the URL of the store is malformed; expected {_FORM}")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = (unquote(each) for each in credentials.partition(":"))
    endpoints = tuple(_endpoint(host) for host in hosts.split(","))
    prefix = _prefix(parts)
    shown = f"{parts.scheme}://{user}{'@' if user else ''}{','.join(endpoints)}/{prefix}"
    parameters = _parameters(parts, shown)
    tls = None
    if parts.scheme == "etcds":
        tls = TlsFiles(*(parameters.get(name, "") for name in _OF_TLS))
        if bool(tls.cert) != bool(tls.key):
            raise StoreError(
                f"{shown} names a certificate without its key, or the reverse; give both cert and key"
            )
    elif given := [name for name in _OF_TLS if name in parameters]:
        raise StoreError(f"{shown} names {given[0]}, which is for TLS; write etcds:// instead of etcd://")
    password_file = parameters.get(_PASSWORD_FILE, "")
    if not password and not password_file:
        password = environ.get(PASSWORD_VARIABLE, "")
        password_file = "" if password else environ.get(PASSWORD_FILE_VARIABLE, "")
    if user and not password and not password_file:
        raise StoreError(
            f"{shown} names a user, but there is no password; set {PASSWORD_VARIABLE} or {PASSWORD_FILE_VARIABLE}, or add"
            f" ?{_PASSWORD_FILE}=FILE"
        )
    return EtcdPlace(
        endpoints=endpoints,
        prefix=prefix,
        user=user,
        tls=tls,
        shown=shown,
        _password=password,
        _password_file=password_file,
    )


def _endpoint(host: str) -> str:
    try:
        if host.startswith("[") and host.endswith("]"):
            return format_address(host[1:-1], PORT)
        return format_address(*split_address(host if ":" in host else f"{host}:{PORT}"))
    except InvalidRequest:
        # The host may be a part of a password with a slash or another sign in it that was not escaped.
        raise StoreError(
            f"the URL of the store has a host that is not HOST or HOST:PORT; expected {_FORM}, with / ? # @ and % in a"
            " password written as %2F %3F %23 %40 and %25"
        ) from None


def _prefix(parts: SplitResult) -> str:
    prefix = unquote(parts.path.removeprefix("/")).rstrip("/") or PREFIX
    if len(prefix.encode()) > PREFIX_MAX or not prefix.isprintable():
        raise StoreError(
            f"the prefix of keys in the URL of the store is 1 to {PREFIX_MAX} bytes of printable characters"
        )
    return prefix


def _parameters(parts: SplitResult, shown: str) -> dict[str, str]:
    known = (*_OF_TLS, _PASSWORD_FILE)
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known or name in found or not value:
            raise StoreError(
                f"{shown} has a parameter that is unknown, empty, or given twice; known are {', '.join(known)}"
            )
        found[name] = value
    return found
