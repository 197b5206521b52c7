"""The TLS of a client: whether its servers speak it, by which files, and what its failures mean.

The modules that know TLS are loaded by the clients that want it alone: they take as long to load as the rest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from lockring.addresses import PLAIN_SCHEME, TLS_SCHEME
from lockring.client.arguments import ServerList
from lockring.client.client_log import client_log
from lockring.errors import InvalidRequest, LockringError, ProtocolError, Unauthenticated, Unavailable
from lockring.native import from_native
from lockring.security.tls_errors import TlsError

if TYPE_CHECKING:
    from lockring.security.tls_layer import TlsLayer
    from lockring.security.tls_policy import ClientTls

FilePath = str | os.PathLike[str]
"""The path of a file, as public calls take it."""


class ClientFiles(NamedTuple):
    """The files that a client uses for TLS, and the name that it expects; "" for those that it is not given.

    Attributes:
        ca: the authorities whose certificates servers may show (PEM); without it, those of the system.
        cert: the client's own certificate (PEM).
        key: the key of that.
        server_name: the name that servers' certificates must have, instead of the host that is dialed.
    """

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""


VARIABLES: Final = ClientFiles("LOCKRING_CA", "LOCKRING_CERT", "LOCKRING_KEY", "LOCKRING_SERVER_NAME")
"""The environment variables that name them."""


def files_of(
    ca: FilePath | None, cert: FilePath | None, key: FilePath | None, server_name: object
) -> ClientFiles:
    """Return the files that the arguments name, or variables for those that are None.

    Programs may pass a name of any type, which compiled code would refuse in words of its own.

    Raises:
        InvalidRequest: a file is not given as a path, or the name is not given as text.
    """
    if server_name is None:
        server_name = from_native(os.environ.get(VARIABLES.server_name, ""))
    elif not isinstance(server_name, str):
        raise InvalidRequest(f"server_name is a text, not a value of the type {type(server_name).__name__}")
    return ClientFiles(
        _path("ca", ca, VARIABLES.ca),
        _path("cert", cert, VARIABLES.cert),
        _path("key", key, VARIABLES.key),
        server_name,
    )


def _path(argument: str, path: FilePath | None, variable: str) -> str:
    if path is None:
        return from_native(os.environ.get(variable, ""))
    try:
        return os.fsdecode(path)
    except TypeError:
        raise InvalidRequest(
            f"{argument} is the path of a file, not a value of the type {type(path).__name__}"
        ) from None


def tls_of(servers: ServerList, files: ClientFiles) -> ClientTls | None:
    """Return the TLS of a client, None for none. The scheme decides whether it has any; without one, its files do.

    Args:
        servers: the servers that it was given.
        files: those that it was given.

    Raises:
        ConfigError: a file is missing or malformed, or does not fit; or no host can have the server's name.
    """
    if servers.scheme == PLAIN_SCHEME or (servers.scheme != TLS_SCHEME and not any(files)):
        return None
    from lockring.security.tls_files import TlsPaths
    from lockring.security.tls_policy import ClientTls

    client_log()  # what TLS logs is for programs that configure logging, as all that the client logs
    return ClientTls(TlsPaths(files.cert, files.key, files.ca), server_name=files.server_name)


def layer_to(tls: ClientTls, host: str) -> TlsLayer:
    """Return the TLS of a new connection to a host. The files are read again if they have changed.

    Certificates name hosts without the dot that may end a name, and addresses without their zone, which is a matter of
    this machine alone.
    """
    from lockring.security.tls_layer import TlsLayer

    return TlsLayer.dial(tls.context, tls.server_name or host.partition("%")[0].removesuffix("."))


def failure_of(error: TlsError, address: str = "") -> LockringError:
    """Return a failure of TLS as the error that a client raises; an `Unavailable` may pass, and names no address.

    Args:
        error: the failure.
        address: HOST:PORT of the server; "" for one of several that may all fail alike.
    """
    server = address or "the server"
    if error.fault == "not-tls":
        plain = f"{PLAIN_SCHEME}{address or 'HOST:PORT'}"
        return ProtocolError(f"{server} does not speak TLS: name it as {plain} to reach it without")
    if error.fault == "refused":
        return Unauthenticated(
            f"{server} does not let this client in: {error}; name a certificate that its authority has issued with --cert and"
            f" --key, or {VARIABLES.cert} and {VARIABLES.key}"
        )
    if error.fault == "untrusted":
        return Unavailable(
            f"{error}; name the authority of its certificate with --ca or {VARIABLES.ca}, or the name in it with"
            f" --server-name or {VARIABLES.server_name}"
        )
    return Unavailable(f"TLS failed: {error}")
