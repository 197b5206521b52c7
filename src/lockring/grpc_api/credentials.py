"""The TLS policy of the process as credentials of its gRPC server.

gRPC has TLS of its own. It asks for the files at each handshake, so new ones are in use at once. It cannot ask clients
for a certificate without requiring one: with `optional` it asks for none, and clients of gRPC come with tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import grpc

from lockring.errors import ConfigError
from lockring.security.handshakes import HANDSHAKE_S_MAX
from lockring.security.tls_files import TlsContent
from lockring.security.tls_policy import TlsPolicy

TLS_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S_MAX * 1000)),
]
"""Options of a server that has such credentials."""


def server_credentials(policy: TlsPolicy) -> grpc.ServerCredentials:
    """Return the credentials of a server with the policy's files for clients.

    Raises:
        ConfigError: the policy has no files for clients.
    """
    files = policy.client_files
    if files is None:
        raise ConfigError("the gRPC port has no certificate: name one with --tls-cert and --tls-key")
    # None means that nothing has changed, which the stubs leave out.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", _Fetcher(policy, files.edition))
    return grpc.dynamic_ssl_server_credentials(
        _configuration(files, policy), fetch, policy.client_auth == "required"
    )


class _Fetcher:
    """Returns the files of each new edition once. Called by gRPC on threads of its own, one call at a time.

    Args:
        policy: has the files.
        edition: the number of those that gRPC has.
    """

    def __init__(self, policy: TlsPolicy, edition: str) -> None:
        self._policy = policy
        self._edition = edition

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        files = self._policy.client_files
        if files is None or files.edition == self._edition:
            return None
        self._edition = files.edition
        return _configuration(files, self._policy)


def _configuration(files: TlsContent, policy: TlsPolicy) -> grpc.ServerCertificateConfiguration:
    authorities = files.ca if policy.client_auth == "required" else None
    return grpc.ssl_server_certificate_configuration([(files.key, files.cert)], root_certificates=authorities)
