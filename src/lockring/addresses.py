"""Addresses: `HOST:PORT` as text, split and formatted; and servers, whose addresses may say whether they speak TLS.

A host is checked wherever an address is read: the system's own look-up raises a `UnicodeError` for a name that no
host can have. No error shows a credential that was written into an address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.errors import InvalidRequest

PORT_MAX: Final = 65_535
PORT_DIGITS_MAX: Final = 5
HOST_CHARS_MAX: Final = 253
LABEL_CHARS_MAX: Final = 63

_LABEL: Final = re.compile(r"[A-Za-z0-9_-]+")
_IP_V6: Final = re.compile(r"[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?")
_CREDENTIAL: Final = re.compile(r"@|lr_[\w.-]+_|eyJ[\w-]+\.")
"""The signs of a credential: an @ behind it, or the beginning of a token or a JWT."""
_SHOWN_CHARS_MAX: Final = 100


def check_host(host: str) -> str:
    """Return the name or address of a host, without brackets, if one can have it.

    Raises:
        InvalidRequest: it is malformed. The text does not begin with what was given.
    """
    if ":" in host:
        if _IP_V6.fullmatch(host) and _is_ip_v6(host):
            return host
        raise InvalidRequest("the host is not an IPv6 address")
    too_long = f"the host's name is too long: it has at most {HOST_CHARS_MAX} characters, and {LABEL_CHARS_MAX} between dots"
    if len(host) > HOST_CHARS_MAX + 1:
        raise InvalidRequest(too_long)
    try:
        ascii_host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidRequest("the host cannot be written as an international name (IDNA)") from None
    labels = ascii_host.removesuffix(".").split(".")
    if not all(labels):
        raise InvalidRequest("a part of the host's name is empty: remove the superfluous dot")
    if any(len(label) > LABEL_CHARS_MAX for label in labels) or len(ascii_host) > HOST_CHARS_MAX + 1:
        raise InvalidRequest(too_long)
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidRequest("the host's name has other characters than letters, digits, '-', '_' and dots")
    return host


def _is_ip_v6(host: str) -> bool:
    import ipaddress  # most addresses need it not

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def split_address(address: object) -> tuple[str, int]:
    """Split "HOST:PORT" (or "[IPV6]:PORT") into its host and port.

    Raises:
        InvalidRequest: it has another form, its port is not within 0 to 65535, or no host can have that name.
    """
    if not isinstance(address, str):
        raise _invalid(address)
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # "http://host:1", "host:1:2", or an IPv6 address whose last group could be a port
    is_port = port.isascii() and port.isdigit() and len(port) <= PORT_DIGITS_MAX and int(port) <= PORT_MAX
    if not host or not is_port:
        raise _invalid(address)
    try:
        return check_host(host), int(port)
    except InvalidRequest as error:
        raise _invalid(address, str(error)) from None


def _invalid(address: object, why: str = "") -> InvalidRequest:
    """Return the error for a malformed address, which is not shown if a credential may be in it."""
    if isinstance(address, str) and _CREDENTIAL.search(address):
        return InvalidRequest(
            "invalid address, which is not shown since a credential may be in it: expected HOST:PORT; show a token with"
            " --token-file or LOCKRING_TOKEN"
        )
    expected = f"{why}; expected" if why else "expected"
    shown = repr(address)
    if len(shown) > _SHOWN_CHARS_MAX:
        shown = f"{shown[:_SHOWN_CHARS_MAX]}…"
    return InvalidRequest(f"invalid address {shown}: {expected} HOST:PORT, such as 127.0.0.1:9501")


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

    With a scheme it is a URL, in which the zone of an IPv6 address follows a %25, as in `[fe80::1%25eth0]`.

    Raises:
        InvalidRequest: it has another scheme, or `split_address` refuses the rest.
    """
    scheme = next((each for each in (PLAIN_SCHEME, TLS_SCHEME) if server.startswith(each)), "")
    address = server.removeprefix(scheme)
    if scheme:
        address = _without_escapes(address.removesuffix("/"))
    elif "://" in server and not _CREDENTIAL.search(server):
        found = server.partition("://")[0]
        raise InvalidRequest(
            f"invalid address {server[:_SHOWN_CHARS_MAX]!r}: {found[:_SHOWN_CHARS_MAX]}:// is not a scheme of lockring;"
            f" expected HOST:PORT, {PLAIN_SCHEME}HOST:PORT, or {TLS_SCHEME}HOST:PORT for TLS"
        )
    split_address(address)
    return scheme, address


def _without_escapes(address: str) -> str:
    """Return the address in a URL with the zone of an IPv6 address as the system writes it (RFC 6874)."""
    before, percent, zone = address.partition("%25")
    if not percent or zone.startswith("]"):  # a % as the system writes it, before the number 25
        return address
    from urllib.parse import unquote  # only for such zones

    return f"{before}%{unquote(zone)}"


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
