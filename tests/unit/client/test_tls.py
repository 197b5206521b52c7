"""The TLS of a client: when it is used, which files it takes, and what its failures mean."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lockring
from lockring.client.arguments import ServerList, server_addresses
from lockring.client.blocking.connection import ClientConnection
from lockring.client.tls import VARIABLES, ClientFiles, failure_of, files_of, layer_to, tls_of
from lockring.errors import ConfigError, InvalidRequest, ProtocolError, Unauthenticated, Unavailable
from lockring.ids import LinkId
from lockring.security.certs import CertMaker
from lockring.security.tls_errors import TlsError
from lockring.security.tls_files import TlsPaths
from lockring.security.tls_layer import TlsLayer
from lockring.security.tls_policy import PortContexts, TlsPolicy

NONE = ClientFiles()


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    maker = CertMaker(tmp_path)
    maker.authorities()
    maker.server(["127.0.0.1"])
    maker.client("web-1")
    return tmp_path


def test_the_scheme_decides_and_without_one_the_files_do(certs: Path) -> None:
    files = ClientFiles(ca=str(certs / "ca.pem"))
    assert tls_of(server_addresses("a:1"), NONE) is None
    assert tls_of(server_addresses("a:1"), files) is not None
    assert tls_of(server_addresses("lockring://a:1"), files) is None
    assert tls_of(server_addresses("lockrings://a:1"), NONE) is not None
    assert tls_of(server_addresses("a:1"), ClientFiles(server_name="x")) is not None
    kept = server_addresses(ServerList(["a:1"], "origin", "lockrings://"))
    assert (kept.scheme, kept.origin) == ("lockrings://", "origin")
    with pytest.raises(InvalidRequest, match="contradicts"):
        server_addresses(["lockrings://a:1", "lockring://b:1"])


_QUIET = """
import sys
import lockring
client = lockring.Client("lockrings://127.0.0.1:1", ca=sys.argv[1])
import logging
logging.getLogger("lockring.tls").warning("a certificate ends soon")
"""


def test_a_program_that_configures_no_logging_sees_nothing_of_tls(certs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _QUIET, certs / "ca.pem"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


def test_arguments_come_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, f"of-{variable}")
    assert files_of(None, None, None, None) == ClientFiles(*(f"of-{variable}" for variable in VARIABLES))
    assert files_of(Path("ca"), "cert", "", "name") == ClientFiles("ca", "cert", "", "name")


def test_files_that_cannot_be_used_are_named(certs: Path) -> None:
    servers = server_addresses("lockrings://a:1")
    with pytest.raises(ConfigError, match="--cert needs --key"):
        tls_of(servers, ClientFiles(cert=str(certs / "client-web-1.pem")))
    with pytest.raises(ConfigError, match=r"missing\.pem cannot be read"):
        tls_of(servers, ClientFiles(ca=str(certs / "missing.pem")))


def test_a_certificate_names_hosts_without_a_last_dot_and_addresses_without_a_zone(
    certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = tls_of(server_addresses("lockrings://a:1"), ClientFiles(ca=str(certs / "ca.pem")))
    assert tls is not None
    for host, expected in (("localhost.", "localhost"), ("fe80::1%eth0", "fe80::1"), ("::1", "::1")):
        assert layer_to(tls, host).tls_object.server_hostname == expected


def test_arguments_of_a_wrong_type_are_refused() -> None:
    for argument in ("ca", "cert", "key"):
        with pytest.raises(
            InvalidRequest, match=f"{argument} is the path of a file, not a value of the type int"
        ):
            lockring.Client(**{argument: 5})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="server_name is a text"):
        lockring.Client(server_name=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        lockring.Client("lockrings://a:1", ca="a\0b")
    assert files_of(b"ca", None, None, "") == ClientFiles(ca="ca")  # type: ignore[arg-type]


def test_only_failures_that_may_pass_are_retried() -> None:
    assert isinstance(failure_of(TlsError("x", "not-tls")), ProtocolError)
    assert isinstance(failure_of(TlsError("x", "refused")), Unauthenticated)
    assert isinstance(failure_of(TlsError("x", "untrusted")), Unavailable)
    assert isinstance(failure_of(TlsError("x")), Unavailable)
    assert "a:1" not in str(failure_of(TlsError("x", "refused"))), "servers that fail alike give one error"
    assert str(failure_of(TlsError("x", "not-tls"), "a:1")).startswith(
        "a:1 does not speak TLS: name it as lockring://a:1"
    )


def pair(certs: Path) -> tuple[TlsLayer, TlsLayer]:
    """Both ends of a connection, after the handshake."""
    maker = CertMaker(certs)
    maker.node("N1")
    server, node = maker.files("server"), maker.files("node-N1")
    policy = TlsPolicy(
        TlsPaths(str(server.cert), str(server.key), ""),
        TlsPaths(str(node.cert), str(node.key), str(certs / "peer-ca.pem")),
    )
    tls = tls_of(server_addresses("lockrings://127.0.0.1:1"), ClientFiles(ca=str(certs / "ca.pem")))
    assert tls is not None
    theirs = TlsLayer.accept(PortContexts(*policy.port_contexts))
    mine = TlsLayer.dial(tls.context, "127.0.0.1")
    while not (mine.is_ready and theirs.is_ready):
        theirs.receive(mine.take_output())
        mine.receive(theirs.take_output())
    return mine, theirs


def test_a_blocking_connection_keeps_sealed_what_the_socket_does_not_take(certs: Path) -> None:
    mine, theirs = pair(certs)
    ours, other = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    wire = ClientConnection(LinkId(1), "a:1", ours, 0, tls=mine)
    sent = [os.urandom(50_000) for _ in range(20)]
    for each in sent:
        wire.send(each)
    assert wire.outgoing, "the buffer is full"
    got = b""
    other.settimeout(30)
    while len(got) < sum(map(len, sent)):
        got += theirs.receive(other.recv(65_536))
        wire.flush()
    assert got == b"".join(sent)
    wire.close()
    other.close()


def test_a_blocking_connection_unseals_records_as_they_become_whole(certs: Path) -> None:
    mine, theirs = pair(certs)
    ours, other = socket.socketpair()
    wire = ClientConnection(LinkId(1), "a:1", ours, 0, tls=mine)
    data = theirs.seal(b"first") + theirs.seal(b"second")
    assert wire.unseal(mine, data[:10]) == b""
    assert wire.unseal(mine, data[10:-3]) == b"first"
    assert wire.unseal(mine, data[-3:]) == b"second"
    with pytest.raises(TlsError):
        wire.unseal(mine, b"\x17\x03\x03\0\x40" + bytes(64))
    wire.close()
    other.close()
