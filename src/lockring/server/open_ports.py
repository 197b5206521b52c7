"""Ports that other machines can reach: a server opens none of them to all comers by mistake.

Rules:

- Loopback addresses need nothing: only processes of this machine, or of this network namespace, can reach them. A name
  counts as loopback if all of its addresses are.
- Any other address needs TLS, and clients that prove what they are: by a certificate that is demanded, or by rights
  that are enforced. `--insecure` does without.
- All ports of a process are judged together, before any is opened or a directory is made.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple

import msgspec

from lockring.addresses import PORT_MAX, format_address, split_address
from lockring.errors import CannotListen, ConfigError
from lockring.server.access_settings import AccessSettings, danger_of
from lockring.server.settings import (
    GRPC_PORT_OFFSET,
    CoordinatorSettings,
    NodeSettings,
    ServeSettings,
    UpSettings,
)
from lockring.system_errors import listen_failure

ServerSettings = CoordinatorSettings | NodeSettings | ServeSettings | UpSettings
"""The settings of a command that runs servers."""

_TLS_FLAGS: Final = "--tls-cert, --tls-key, --peer-tls-cert, --peer-tls-key and --peer-tls-ca"
_IDENTITIES: Final = "--tls-ca, which demands certificates of clients, or --auth enforcing with an --acl-file"


class OpenPort(NamedTuple):
    """A port that is about to be opened: the flag that names it, and the value, an address or a host."""

    flag: str
    value: str
    host: str


def checked_access(settings: ServerSettings, access: AccessSettings) -> AccessSettings:
    """Check that no port is open to all comers by mistake. Blocks for as long as names are looked up.

    Args:
        settings: of the command that runs.
        access: its access control.

    Returns:
        The access control, whose `insecure` says whether the server is open.

    Raises:
        ConfigError: it would be open, and `--insecure` is not given.
        CannotListen: the host of a port is unknown.
    """
    has_identities = _demands_certificates(settings) or access.auth == "enforcing"
    danger = danger_of(has_tls=_has_tls(settings), has_identities=has_identities)
    exposed = [each for each in ports_of(settings) if not is_loopback(each)] if danger else []
    if exposed and not access.insecure:
        raise ConfigError(_refusal(settings, exposed, danger, _way_out_of(settings, access)))
    return msgspec.structs.replace(access, insecure=bool(exposed))


def ports_of(settings: ServerSettings) -> list[OpenPort]:
    """Return the ports that a command opens, as its settings name them."""
    if isinstance(settings, UpSettings):
        return [OpenPort("--host", settings.host, settings.host)]
    ports = [_port("--listen", settings.listen)]
    if settings.http and settings.http_listen:  # the default is an address of loopback
        ports.append(_port("--http-listen", settings.http_listen))
    if isinstance(settings, CoordinatorSettings):
        return ports
    if isinstance(settings, ServeSettings):
        ports.append(_port("--coordinator-listen", settings.coordinator_listen))
    if settings.grpc:
        ports.append(_port("--grpc-listen", settings.grpc_listen or _default_of_grpc(settings.listen)))
    return ports


def is_loopback(port: OpenPort) -> bool:
    """Return whether only processes of this machine can reach a port.

    Raises:
        CannotListen: its host is unknown.
    """
    try:
        found = socket.getaddrinfo(port.host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = listen_failure(error) if isinstance(error, OSError) else str(error)
        raise CannotListen(f"cannot listen on {port.value}: {why}") from error
    return all(_is_loopback_address(str(address[0])) for *_, address in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _port(flag: str, address: str) -> OpenPort:
    return OpenPort(flag, address, split_address(address)[0])


def _default_of_grpc(listen: str) -> str:
    host, port = split_address(listen)
    return format_address(host, port + GRPC_PORT_OFFSET if 0 < port <= PORT_MAX - GRPC_PORT_OFFSET else 0)


def _has_tls(settings: ServerSettings) -> bool:
    return settings.has_tls or (isinstance(settings, UpSettings) and settings.tls)


def _demands_certificates(settings: ServerSettings) -> bool:
    return settings.client_auth == "required" or (isinstance(settings, UpSettings) and settings.tls)


def _refusal(settings: ServerSettings, exposed: list[OpenPort], danger: str, way_out: str) -> str:
    named = " and ".join(f"{each.flag} {each.value}" for each in exposed)
    local = "--host 127.0.0.1" if isinstance(settings, UpSettings) else "127.0.0.1"
    return (
        f"{named} can be reached from other machines, and {danger}: {way_out}; or listen on {local}; or add --insecure,"
        " in a network that you trust"
    )


def _way_out_of(settings: ServerSettings, access: AccessSettings) -> str:
    if _has_tls(settings):
        return f"add {_IDENTITIES}"
    if isinstance(settings, UpSettings):
        return "add --tls, which makes certificates for development"
    more = "" if access.auth == "enforcing" else f", and {_IDENTITIES}"
    return f"add {_TLS_FLAGS}{more} (lockring certs makes such files)"
