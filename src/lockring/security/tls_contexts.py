"""TLS contexts made from files: for ports, for servers that dial servers, and for clients.

All have the same rules: TLS 1.2 at least, no compression, no renegotiation, and the strict checks of certificates that
Python 3.13 has made its default, on every Python.

Ports give out no tickets, with which a session could be resumed after its certificate was revoked. The library still
remembers sessions of TLS 1.2 within one context. So `tls_layer` looks at the certificate of a resumed one again, and
new files make a new context, which knows none.
"""

from __future__ import annotations

import re
import ssl
from typing import Final, Literal, NoReturn

from lockring.errors import ConfigError
from lockring.security.tls_files import HalfWritten, TlsContent, TlsPaths, read_files

ClientAuth = Literal["none", "optional", "required"]
"""Whether a port asks clients for certificates, and refuses those without."""

PEER_NAME: Final = "server.lockring.internal"
"""The server name by which one server asks another for the certificate that it shows to servers alone."""

_PLACE_IN_LIBRARY: Final = re.compile(r" *\(_ssl\.c:\d+\)")

_CERT_MODES: Final[dict[ClientAuth, ssl.VerifyMode]] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


def port_context(
    paths: TlsPaths, content: TlsContent, client_auth: ClientAuth, *, protocol: str = ""
) -> ssl.SSLContext:
    """Return the context with which a port accepts.

    Args:
        paths: of the files; all three are needed unless `client_auth` is "none".
        content: what they held when they were read just before.
        client_auth: what is asked of the other side.
        protocol: the only one that the port speaks, by its name in ALPN (RFC 7301), "" for one without a name there.
            A client that offers others alone goes without, and so does one that offers nothing.

    Raises:
        ConfigError: the key is encrypted; or, as `HalfWritten`, a file is malformed, the key is not that of the
            certificate, or the files have changed since.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    if protocol:
        context.set_alpn_protocols([protocol])
    _load_pair(context, paths)
    if client_auth != "none":
        _load_authorities(context, paths, content)
    context.verify_mode = _CERT_MODES[client_auth]
    _require_unchanged(paths, content)
    return context


def peer_context(paths: TlsPaths, content: TlsContent) -> ssl.SSLContext:
    """Return the context with which a server dials another; `PEER_NAME` is the server name to ask for.

    The servers' own authority is what makes the other side a server. Its certificate need not name a host.

    Raises:
        ConfigError: see `port_context`.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    _load_pair(context, paths)
    _load_authorities(context, paths, content)
    _require_unchanged(paths, content)
    return context


def client_context(paths: TlsPaths, content: TlsContent) -> ssl.SSLContext:
    """Return the context with which a client dials: the server's certificate must name the host that was dialed.

    Args:
        paths: of the files; without `ca`, the system's authorities count, without `cert`, the client shows none.
        content: what they held when they were read just before.

    Raises:
        ConfigError: see `port_context`.
    """
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    if paths.ca:
        _load_authorities(context, paths, content)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if paths.cert:
        _load_pair(context, paths)
    _require_unchanged(paths, content)
    return context


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _load_pair(context: ssl.SSLContext, paths: TlsPaths) -> None:
    try:
        context.load_cert_chain(paths.cert, paths.key or None, password=_refuse_password)
    except _EncryptedKeyError:
        raise ConfigError(
            f"the key {paths.key or paths.cert} is encrypted, and a server has no one to ask for its password; decrypt it, and let"
            " only the server's user read it"
        ) from None
    except ssl.SSLError as error:
        raise HalfWritten(f"{_pair(paths)} do not fit together: {_plain(error)}") from None
    except OSError as error:
        # They were read a moment ago.
        raise HalfWritten(f"{_pair(paths)} cannot be read: {_plain(error)}") from None


def _load_authorities(context: ssl.SSLContext, paths: TlsPaths, content: TlsContent) -> None:
    try:
        context.load_verify_locations(cadata=content.ca.decode("ascii", "ignore"))
    except ssl.SSLError as error:
        raise HalfWritten(
            f"{paths.ca or 'the CA file'} has no certificate of an authority in PEM form: {_plain(error)}"
        ) from (None)


def _require_unchanged(paths: TlsPaths, content: TlsContent) -> None:
    """Check that what was loaded by its path is what was read: a pair of files is not replaced in one step."""
    if read_files(paths) != content:
        raise HalfWritten(f"{paths.cert or paths.ca} and the files beside it are changing at this moment")


def _pair(paths: TlsPaths) -> str:
    return f"the certificate {paths.cert} and the key {paths.key or paths.cert}"


def _plain(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    text = (
        str(reason).replace("_", " ") if reason else _PLACE_IN_LIBRARY.sub("", error.strerror or str(error))
    )
    return text.lower()


class _EncryptedKeyError(Exception):
    """The key needs a password, for which the library would ask at the terminal."""


def _refuse_password() -> NoReturn:
    raise _EncryptedKeyError
