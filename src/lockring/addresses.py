"""Addresses: `HOST:PORT` as text, split and formatted; and servers, whose addresses may say whether they speak TLS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.errors import InvalidRequest

PORT_MAX: Final = 65_535


def split_address(address: object) -> tuple[str, int]:
    """Split "HOST:PORT" (or "[IPV6]:PORT") into its host and port.

    Raises:
        InvalidRequest: it has another form, or its port is not within 0 to 65535.
    """
    if isinstance(address, str):
        host, _, port = address.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""  # "http://host:1", "host:1:2", or an IPv6 address whose last group could be a port
        if host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX:
            return host, int(port)
    raise InvalidRequest(f"invalid address {address!r}: expected HOST:PORT, such as 127.0.0.1:9501")


def format_address(host: str, port: int) -> str:
    """Return HOST:PORT, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


PLAIN_SCHEME: Final = "lockring://"
TLS_SCHEME: Final = "lockrings://"


class ServerNames(NamedTuple):
    """Servers as a client is given them.

    Attributes:
        addresses: HOST:PORT of each, without repetition.
        scheme: `TLS_SCHEME`, `PLAIN_SCHEME`, or "" where none is given.
    """

    addresses: tuple[str, ...]
    scheme: str


def split_scheme(server: str) -> tuple[str, str]:
    """Split a server into its scheme, "" for none, and HOST:PORT.

    Raises:
        InvalidRequest: the rest is not HOST:PORT, or its port is not within 0 to 65535.
    """
    scheme = next((each for each in (PLAIN_SCHEME, TLS_SCHEME) if server.startswith(each)), "")
    address = server.removeprefix(scheme)
    if scheme:
        address = address.removesuffix("/")
    split_address(address)
    return scheme, address


def names_of(servers: Iterable[str]) -> ServerNames:
    """Return the addresses of servers, and what all of them speak. The first one's scheme is for those without one too.

    Raises:
        InvalidRequest: one is neither HOST:PORT nor lockring://HOST:PORT or lockrings://HOST:PORT, or the schemes
            contradict each other.
    """
    split = [split_scheme(each) for each in servers]
    scheme = split[0][0] if split else ""
    for other, address in split:
        if other and other != scheme:
            raise InvalidRequest(
                f"{other}{address} contradicts the server before it: all servers of a cluster speak TLS ({TLS_SCHEME}), or none"
            )
    return ServerNames(tuple(dict.fromkeys(address for _, address in split)), scheme)
