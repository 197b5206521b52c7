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

from lockring.addresses import format_address
from lockring.errors import InvalidRequest, StoreError
from lockring.store.passwords import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE
from lockring.store.url_parts import Secrets, UrlHost, UrlParts, take_apart
from lockring.system_errors import reason_of

PORT: Final = 2379
PREFIX: Final = "lockring"
PREFIX_MAX: Final = 200

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
        secrets: what no text may show.
    """

    endpoints: tuple[str, ...]
    prefix: str
    user: str
    tls: TlsFiles | None
    shown: str
    secrets: Secrets = field(repr=False, compare=False)
    _password: str = field(default="", repr=False)
    _password_file: str = ""

    @property
    def named(self) -> str:
        """The engine and the place, for people."""
        return f"etcd ({self.shown})"

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
        InvalidRequest: it is malformed, or names a user without a password; the text shows nothing that may be secret.
    """
    parts = take_apart(url, _FORM)
    if parts.scheme not in ("etcd", "etcds") or parts.fragment:
        raise InvalidRequest(f"the URL of the store is malformed; expected {_FORM}")
    user, password = parts.user, parts.password
    endpoints = tuple(_endpoint(host) for host in parts.hosts)
    prefix = _prefix(parts)
    shown = f"{parts.scheme}://{user}{'@' if user else ''}{','.join(endpoints)}/{prefix}"
    parameters = _parameters(parts, shown)
    tls = None
    if parts.scheme == "etcds":
        tls = TlsFiles(*(parameters.get(name, "") for name in _OF_TLS))
        if bool(tls.cert) != bool(tls.key):
            raise InvalidRequest(
                f"{shown} names a certificate without its key, or the reverse; give both cert and key"
            )
    elif given := [name for name in _OF_TLS if name in parameters]:
        raise InvalidRequest(f"{shown} names {given[0]}, which is for TLS; write etcds:// instead of etcd://")
    password_file = parameters.get(_PASSWORD_FILE, "")
    if not password and not password_file:
        password = environ.get(PASSWORD_VARIABLE, "")
        password_file = "" if password else environ.get(PASSWORD_FILE_VARIABLE, "")
    if user and not password and not password_file:
        raise InvalidRequest(
            f"{shown} names a user, but there is no password; set {PASSWORD_VARIABLE} or {PASSWORD_FILE_VARIABLE}, or add"
            f" ?{_PASSWORD_FILE}=FILE"
        )
    return EtcdPlace(
        endpoints=endpoints,
        prefix=prefix,
        user=user,
        tls=tls,
        shown=shown,
        secrets=Secrets((url, parts.password, parts.written, password)),
        _password=password,
        _password_file=password_file,
    )


def _endpoint(host: UrlHost) -> str:
    if not host.name:
        raise InvalidRequest(
            f"the URL of the store has a host that is not HOST or HOST:PORT; expected {_FORM}"
        )
    if "%" in host.name:
        raise InvalidRequest(
            "the URL of the store has a host with a zone or an escaped character, which no client of etcd takes; name a"
            f" host, or an address without a zone; expected {_FORM}"
        )
    return format_address(host.name, PORT if host.port is None else host.port)


def _prefix(parts: UrlParts) -> str:
    prefix = parts.path.rstrip("/") or PREFIX
    if len(prefix.encode()) > PREFIX_MAX or not prefix.isprintable():
        raise InvalidRequest(
            f"the prefix of keys in the URL of the store is 1 to {PREFIX_MAX} bytes of printable characters"
        )
    return prefix


def _parameters(parts: UrlParts, shown: str) -> dict[str, str]:
    known = (*_OF_TLS, _PASSWORD_FILE)
    found: dict[str, str] = {}
    for name, value in parts.parameters:
        if name not in known or name in found or not value:
            raise InvalidRequest(
                f"{shown} has a parameter that is unknown, empty, or given twice; known are {', '.join(known)}"
            )
        found[name] = value
    return found
