"""The settings by which commands reach a cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lockring.addresses import check_host, names_of, split_scheme
from lockring.config import setting
from lockring.errors import ConfigError, InvalidRequest


def _server_name(name: str) -> None:
    if name:
        check_host(name)


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of every command that talks to a cluster."""

    servers: Annotated[
        tuple[str, ...],
        setting(
            "The cluster: the address of any node or of the coordinator; several, separated by commas. With TLS it is"
            " lockrings://HOST:PORT.",
            metavar="HOST:PORT",
            check=split_scheme,
            key="server",
        ),
    ] = ("127.0.0.1:9501",)
    connect_timeout_s: Annotated[
        float,
        setting(
            "How long to try to reach the cluster and get an answer.",
            unit="seconds",
            minimum=0.1,
            maximum=3600,
        ),
    ] = 10.0
    ca: Annotated[
        str,
        setting(
            "Authorities whose certificates servers may show (PEM). By default those of the system.",
            metavar="FILE",
        ),
    ] = ""
    cert: Annotated[str, setting("Certificate to show to servers (PEM).", metavar="FILE")] = ""
    key: Annotated[str, setting("The private key of --cert, unencrypted (PEM).", metavar="FILE")] = ""
    server_name: Annotated[
        str,
        setting(
            "Name that servers' certificates must have, instead of the host that is dialed.",
            metavar="NAME",
            check=_server_name,
        ),
    ] = ""
    token_file: Annotated[
        str | None,
        setting(
            "File with the token or JWT to show to servers. Without one, LOCKRING_TOKEN may hold it.",
            metavar="FILE",
        ),
    ] = None

    def __post_init__(self) -> None:
        try:
            names_of(self.servers)
        except InvalidRequest as error:
            raise ConfigError(f"--server: {error}") from None

    @property
    def addresses(self) -> tuple[str, ...]:
        """HOST:PORT of each server, without repetition."""
        return names_of(self.servers).addresses

    @property
    def scheme(self) -> str:
        """How the servers are named, see `addresses.ServerNames`."""
        return names_of(self.servers).scheme

    def credential(self) -> str:
        """Return the token or JWT to show to servers, "" for none.

        Raises:
            ConfigError: the file cannot be read, or has none.
        """
        # Only commands that reach a cluster need it.
        from lockring.security.credential_source import CredentialSource

        return CredentialSource(self.token_file)()
