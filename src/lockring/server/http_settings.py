"""The settings of HTTP, which all commands that run servers have."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from lockring.config import setting
from lockring.core.node import PREFIXES_MAX
from lockring.errors import ConfigError, InvalidRequest
from lockring.names import check_lock_name
from lockring.server.tls_settings import TlsSettings

HTTP_PORT_OFFSET: Final = 200
"""Distance of a server's default HTTP port from its port for clients."""

LOOPBACK: Final = "127.0.0.1"
"""The host of the default HTTP port."""

_HTTP: Final = "Whether to serve HTTP: health, metrics and pages for people."
_HTTP_PREFIX: Final = "Path that a proxy in front adds to every URL, such as /lockring."
_HTTP_HOSTS: Final = (
    "Further names under which browsers reach the HTTP port, besides localhost, addresses in numbers, and the names in"
    " --http-listen and --advertise."
)
_METRICS_PREFIXES: Final = "Beginnings of names whose locks have metrics of their own, such as jobs/."
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HOST: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


def _check_prefix(text: str) -> None:
    if text and (_PREFIX.fullmatch(text) is None or {".", ".."} & set(text.split("/"))):
        raise InvalidRequest(
            f"expected a path such as /lockring, of letters, digits and - . _ ~, without a slash at its end, got {text!r}"
        )


def _check_host(text: str) -> None:
    if _HOST.fullmatch(text) is None:
        raise InvalidRequest(f"expected the name of a host, such as locks.example, got {text!r}")


def _check_metrics_prefix(text: str) -> None:
    check_lock_name(text)


MetricsPrefixes = Annotated[
    tuple[str, ...], setting(_METRICS_PREFIXES, metavar="PREFIX", check=_check_metrics_prefix)
]
"""The setting of servers that have a node."""


def check_metrics_prefixes(prefixes: tuple[str, ...]) -> None:
    """Check that there are not too many.

    Raises:
        ConfigError: there are.
    """
    if len(prefixes) > PREFIXES_MAX:
        raise ConfigError(f"--metrics-prefixes has {len(prefixes)} prefixes, and may have {PREFIXES_MAX}")


class HttpSettings(TlsSettings, frozen=True, kw_only=True):
    """TLS, and whether there is HTTP, and under which names and path; `http_prefix` is "" for none."""

    http: Annotated[bool, setting(_HTTP)] = True
    http_prefix: Annotated[str, setting(_HTTP_PREFIX, metavar="PATH", check=_check_prefix)] = ""
    http_hosts: Annotated[tuple[str, ...], setting(_HTTP_HOSTS, metavar="HOST", check=_check_host)] = ()

    def http_fields(self) -> dict[str, Any]:
        """Return these settings by field, for the settings of another server with the same."""
        return {field: getattr(self, field) for field in ("http", "http_prefix", "http_hosts")}
