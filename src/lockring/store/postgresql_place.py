"""The place of a cluster's state in PostgreSQL, as a URL gives it: `postgresql://…` as libpq has it, and `#CLUSTER`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lockring.errors import InvalidRequest
from lockring.store.passwords import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE
from lockring.store.url_parts import Secrets, UrlHost, take_apart
from lockring.system_errors import reason_of

NAME: Final = "lockring"
NAME_MAX: Final = 200
_FORM: Final = "postgresql://[USER@]HOST[:PORT],…/DATABASE[?NAME=VALUE&…][#CLUSTER]"
_PASSWORDS: Final = ("password", "sslpassword")
"""Parameters of libpq that are secret."""
_PASSWORD_VARIABLE: Final = "PGPASSWORD"


@dataclass(frozen=True)
class PostgresPlace:
    """A place in a PostgreSQL database.

    Attributes:
        conninfo: what libpq takes: of the URL, with the password where that comes from elsewhere.
        name: of the cluster.
        shown: the URL for people.
        secrets: what no text may show.
    """

    conninfo: str = field(repr=False)
    name: str = field(repr=False)
    shown: str
    secrets: Secrets = field(repr=False)

    @property
    def named(self) -> str:
        """The engine and the place, for people."""
        return f"PostgreSQL ({self.shown})"


def parse(url: str, environ: Mapping[str, str] = os.environ) -> PostgresPlace:
    """Return the place that a URL names.

    Args:
        url: see above.
        environ: the environment's variables.

    Raises:
        InvalidRequest: it is malformed, and the text shows nothing of it; or the password's file cannot be read.
    """
    parts = take_apart(url, _FORM)
    name = parts.fragment or NAME
    if len(name) > NAME_MAX or not name.isprintable():
        raise InvalidRequest(
            f"a cluster's name, which follows the # in the URL of the store, is 1 to {NAME_MAX} printable characters"
        )
    conninfo = url.partition("#")[0]
    written = [value for key, value in parts.parameters if key == "password"]
    password = "" if parts.password or written else _password_from(environ)
    passwords = [value for key, value in parts.parameters if key in _PASSWORDS]
    user = f"{quote(parts.user)}@" if parts.user else ""
    path = f"/{quote(parts.path)}" if parts.path else ""
    shown = f"postgresql://{user}{','.join(map(_shown_host, parts.hosts))}{path}"
    # After such a parameter, an unescaped # in the password would make a name of the rest of it.
    if parts.fragment and not passwords:
        shown += f"#{parts.fragment}"
    words = (
        url,
        conninfo,
        parts.password,
        parts.written,
        *passwords,
        password,
        environ.get(_PASSWORD_VARIABLE, ""),
    )
    if not _is_known_to_libpq(conninfo):
        raise InvalidRequest(
            f"the URL of the store has a parameter that libpq does not know, or cannot read; expected {_FORM}"
        )
    if password:
        conninfo = _with_password(conninfo, password)
    return PostgresPlace(conninfo, name, shown, Secrets(words))


def _password_from(environ: Mapping[str, str]) -> str:
    """Return the password from lockring's own variables, "" if they have none: libpq then looks for one itself."""
    path = environ.get(PASSWORD_FILE_VARIABLE, "")
    if environ.get(PASSWORD_VARIABLE) or not path:
        return environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"the store's password cannot be read from {path}, which {PASSWORD_FILE_VARIABLE} names: {reason_of(error)}"
        ) from error


def _with_password(conninfo: str, password: str) -> str:
    """Return what libpq takes with a password, as far as it is installed."""
    try:
        import psycopg.conninfo
    except ImportError:
        return conninfo
    return psycopg.conninfo.make_conninfo(conninfo, password=password)


def _is_known_to_libpq(conninfo: str) -> bool:
    """Return whether libpq takes a URL, as far as it is installed. What it says quotes the URL, so that is lost."""
    try:
        import psycopg.conninfo
    except ImportError:
        return True
    try:
        psycopg.conninfo.conninfo_to_dict(conninfo)
    except psycopg.Error:
        return False
    return True


def _shown_host(host: UrlHost) -> str:
    name = f"[{host.name}]" if ":" in host.name else host.name
    return name if host.port is None else f"{name}:{host.port}"
