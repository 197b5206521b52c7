"""Certificates for all tests of this folder, made once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lockring.security.certs import CertFiles, CertMaker
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_policy import ClientTls, TlsPolicy


class Certs:
    """Certificates in a directory, as `lockring certs` makes them, and the paths that servers and clients name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.maker = CertMaker(directory)
        self.maker.authorities()
        self.server = self.maker.server(["localhost", "127.0.0.1", "::1"])
        self.client = self.maker.client("web-1")
        self.node = self.maker.node("n1")

    def paths(self, files: CertFiles | None, ca: str = "ca") -> TlsPaths:
        """The paths of a certificate and of the authority to trust."""
        cert, key = ("", "") if files is None else (str(files.cert), str(files.key))
        return TlsPaths(cert, key, str(self.directory / f"{ca}.pem") if ca else "")

    def policy(self, client_auth: str = "optional") -> TlsPolicy:
        """The policy of a server with both sides."""
        return TlsPolicy(self.paths(self.server), self.paths(self.node, "peer-ca"), client_auth=client_auth)

    @functools.cached_property
    def policy_once(self) -> TlsPolicy:
        """One policy for many connections."""
        return self.policy()

    @functools.cached_property
    def client_once(self) -> ClientTls:
        """The TLS of one client for many connections."""
        return ClientTls(self.paths(self.client))

    def expired(self, identity: str) -> CertFiles:
        """A client's certificate that ended a day ago."""
        maker = CertMaker(self.directory, now=datetime.now(UTC) - timedelta(days=366))
        return maker.client(identity, days=365)


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certs:
    """The same of other authorities."""
    return Certs(tmp_path_factory.mktemp("foreign"))


@pytest.fixture
def fresh(tmp_path: Path) -> Certs:
    """Certificates that a test may change."""
    return Certs(tmp_path / "certs")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine in an event loop of each kind."""
    return asyncio.run if request.param == "asyncio" else uvloop.run
