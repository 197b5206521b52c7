"""The names under which a site may be asked for.

A page of another site can have a browser ask this one, under the other site's name: its owner lets the name mean
127.0.0.1 for a moment (DNS rebinding). The browser then takes both for one site. So only names that are known to mean
this server are answered, and addresses in numbers, which cannot be given another meaning.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

_ALWAYS: Final = frozenset({"localhost"})


class KnownHosts:
    """The names of one site.

    Args:
        names: hosts under which it is reached, without ports. Addresses in numbers need not be among them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = _ALWAYS | {_plain(each) for each in names}

    def allows(self, header: str | None) -> bool:
        """Return whether a request may be answered, by its header `Host`; None if it has none."""
        if header is None:
            return True  # no browser leaves it out: this is an old prober with HTTP/1.0
        host = _host_of(header)
        if host is None:
            return False
        return _is_number(host) or _plain(host) in self._names


def _host_of(header: str) -> str | None:
    """Return the host of "HOST" or "HOST:PORT", without the brackets of IPv6; None if it is neither."""
    if header.startswith("["):
        host, bracket, port = header[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        if not _is_ipv6(host):
            return None  # which no URL has
        port = port[1:]
    else:
        host, _, port = header.partition(":")
    return host if host and (not port or (port.isascii() and port.isdigit())) else None


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")
