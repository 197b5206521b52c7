"""Addresses: `HOST:PORT` as text, split and formatted."""

from __future__ import annotations

from typing import Final

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
