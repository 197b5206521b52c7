"""The settings by which commands reach a cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec

from lockring.addresses import split_address
from lockring.config import setting


class ClientSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of every command that talks to a cluster."""

    servers: Annotated[
        tuple[str, ...],
        setting(
            "The cluster: the address of any node or of the coordinator; several, separated by commas.",
            metavar="HOST:PORT",
            check=split_address,
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
    token_file: Annotated[
        str | None,
        setting(
            "File with the token or JWT to show to servers. Without one, LOCKRING_TOKEN may hold it.",
            metavar="FILE",
        ),
    ] = None

    def credential(self) -> str:
        """Return the token or JWT to show to servers, "" for none.

        Raises:
            ConfigError: the file cannot be read, or has none.
        """
        from lockring.security.credential_source import (
            CredentialSource,
        )  # only commands that reach a cluster need it

        return CredentialSource(self.token_file)()
