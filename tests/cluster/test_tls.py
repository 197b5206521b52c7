"""TLS on every port: which certificates get in, which do not, and what each side learns of it."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import ssl
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

import lockring
import lockring.aio
from lockring.addresses import split_address
from lockring.client.arguments import ServerList
from lockring.client.tls import ClientFiles, tls_of
from lockring.client.tls_dial import dial_with
from lockring.errors import LockringError, ProtocolError, Unauthenticated, Unavailable
from lockring.net.frames import FrameReader, encode_frame
from lockring.net.oneshot import Dial, ask_drain, ask_state, ask_status, ask_undrain
from lockring.protocol import PROTOCOL, Join, PeerHello, Refusal, ToClient
from lockring.security.certs import CertMaker
from lockring.security.tls_contexts import PEER_NAME, peer_context
from lockring.security.tls_errors import TlsError
from lockring.security.tls_files import TlsPaths, read_files
from lockring.security.tls_layer import TlsLayer
from lockring.security.tls_socket import TlsStream, shake_hands
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.grpc_calls import Caller
from tests.cluster.running import Running, running
from tests.cluster.wire import Wire
from tests.processes import PATIENCE_S, address, children_of, eventually

LOCK, LEADER, GRPC = "lock", "coordinator", "grpc"
PORTS = (LOCK, LEADER)
"""The ports that speak lockring's own protocol."""


@pytest.fixture(scope="module")
def doors() -> Iterator[LocalCluster]:
    """Three nodes whose ports all speak TLS, and whose clients need certificates."""
    with LocalCluster(nodes=3, tls=True, grpc=True, **CALM) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def wrong(doors: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientFiles]:
    """Certificates of clients that are not enough, by name."""
    own, foreign = certs_of(doors), tmp_path_factory.mktemp("foreign")
    maker = CertMaker(foreign)
    maker.authorities()
    stranger = maker.client("stranger")
    past = CertMaker(own, replace=True, now=datetime.now(UTC) - timedelta(days=100))
    late = past.client("late", days=30)
    ca = str(own / "ca.pem")
    return {
        "none": ClientFiles(ca),
        "foreign": ClientFiles(ca, str(stranger.cert), str(stranger.key)),
        "expired": ClientFiles(ca, str(late.cert), str(late.key)),
    }


WRONG = ("none", "foreign", "expired")
REASONS = {
    "none": "it asks for a certificate, and this side has shown none",
    "foreign": "it does not accept this side's certificate: it comes from another authority",
    "expired": "it does not accept this side's certificate: it has expired",
}


def certs_of(cluster: LocalCluster) -> Path:
    assert cluster.certificates is not None
    return cluster.certificates.directory


def own_files(cluster: LocalCluster) -> ClientFiles:
    assert cluster.certificates is not None
    return ClientFiles(**cluster.certificates.client_files)


def dial_by(files: ClientFiles) -> Dial:
    return dial_with(tls_of(ServerList([]), files))


def address_of(cluster: LocalCluster, port: str) -> str:
    return (
        cluster.grpc_address_of("N1")
        if port == GRPC
        else cluster.address_of("N1" if port == LOCK else COORDINATOR)
    )


def options_of(files: ClientFiles) -> dict[str, Any]:
    """The arguments of a client; those that are missing are empty, and not from the test's own environment."""
    return files._asdict()


# ----------------------------------------------------------------------- what works


def test_both_clients_work_with_certificates(doors: LocalCluster) -> None:
    options = options_of(own_files(doors))
    with lockring.Client(doors.servers, **options) as client:
        with client.lock("a").acquire(timeout=PATIENCE_S) as grant:
            assert client.describe("a").holders[0].fencing_token == grant.fencing_token
        names = [f"many/{number}" for number in range(300)]
        with client.acquire_all(names, timeout=PATIENCE_S):
            assert len(client.locks("many/")) == 300

    async def main() -> None:
        for own_thread in (False, True):
            async with (
                lockring.aio.Client(doors.servers, own_thread=own_thread, **options) as client,
                await client.lock("a").acquire(timeout=PATIENCE_S) as grant,
            ):
                assert (await client.describe("a")).holders[0].fencing_token == grant.fencing_token

    asyncio.run(main())


def test_a_client_past_its_event_loop_gives_up_its_locks(doors: LocalCluster) -> None:
    """Its last words are sealed and written to the socket without the loop. The lease outlasts the test."""
    options = options_of(own_files(doors))
    client = lockring.aio.Client(doors.servers, ttl=30, **options)
    loop = asyncio.new_event_loop()
    grant = loop.run_until_complete(client.lock("late").acquire(timeout=PATIENCE_S))
    asyncio.run(client.close())  # another loop: the client's own does not run any more
    assert not grant.held
    with lockring.Client(doors.servers, **options) as other:
        other.lock("late").acquire(timeout=20).release()
    for wire in client._driver._wires.values():  # type: ignore[union-attr]
        assert wire.transport is not None
        wire.transport.abort()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_files_without_a_scheme_are_enough(doors: LocalCluster) -> None:
    servers = doors.servers.removeprefix("lockrings://")
    with lockring.Client(servers, **options_of(own_files(doors))) as client:
        client.lock("b").acquire(timeout=PATIENCE_S).release()


def test_the_coordinator_alone_leads_to_the_nodes(doors: LocalCluster) -> None:
    with lockring.Client(
        f"lockrings://{doors.address_of(COORDINATOR)}", **options_of(own_files(doors))
    ) as client:
        client.lock("c").acquire(timeout=PATIENCE_S).release()


def test_a_name_in_the_certificate_may_be_expected_instead_of_the_host(doors: LocalCluster) -> None:
    node = doors.address_of("N1")
    files = own_files(doors)
    assert ask_status(node, dial=dial_by(files._replace(server_name="localhost"))).node == "N1"
    with pytest.raises(
        Unavailable, match=r"its certificate is refused: .*; name the authority .* --server-name"
    ):
        ask_status(node, dial=dial_by(files._replace(server_name="example.org")))


def test_drains_go_through_a_node_and_the_coordinator(doors: LocalCluster) -> None:
    dial = dial_by(own_files(doors))
    for server in (doors.address_of("N1"), doors.address_of(COORDINATOR)):
        ask_drain(server, "N3", timeout_s=PATIENCE_S, dial=dial)
        ask_undrain(server, "N3", timeout_s=PATIENCE_S, dial=dial)
    doors.wait_until_stable()


# ----------------------------------------------------------------------- wrong certificates of clients


@pytest.mark.parametrize("shown", WRONG)
@pytest.mark.parametrize("port", PORTS)
def test_a_question_with_a_wrong_certificate_is_refused(
    doors: LocalCluster, wrong: dict[str, ClientFiles], port: str, shown: str
) -> None:
    server = address_of(doors, port)
    with pytest.raises(Unauthenticated) as caught:
        ask_state(server, timeout_s=PATIENCE_S, dial=dial_by(wrong[shown]))
    assert str(caught.value).startswith(
        f"{server} does not let this client in: {REASONS[shown]}; name a certificate"
    )


@pytest.mark.parametrize("shown", WRONG)
@pytest.mark.parametrize("port", PORTS)
def test_a_blocking_client_with_a_wrong_certificate_is_refused_at_once(
    doors: LocalCluster, wrong: dict[str, ClientFiles], port: str, shown: str
) -> None:
    server = address_of(doors, port)
    with lockring.Client(
        f"lockrings://{server}", connect_timeout=PATIENCE_S, **options_of(wrong[shown])
    ) as client:
        with pytest.raises(Unauthenticated, match=REASONS[shown]):
            client.lock("x").acquire()
        with pytest.raises(Unauthenticated, match=REASONS[shown]):
            client.describe("x", timeout=PATIENCE_S)


@pytest.mark.parametrize("own_thread", [False, True])
@pytest.mark.parametrize("shown", WRONG)
@pytest.mark.parametrize("port", PORTS)
def test_an_asyncio_client_with_a_wrong_certificate_is_refused_at_once(
    doors: LocalCluster, wrong: dict[str, ClientFiles], port: str, shown: str, own_thread: bool
) -> None:
    async def main() -> None:
        server = address_of(doors, port)
        async with lockring.aio.Client(
            f"lockrings://{server}",
            connect_timeout=PATIENCE_S,
            own_thread=own_thread,
            **options_of(wrong[shown]),
        ) as client:
            with pytest.raises(Unauthenticated, match=REASONS[shown]):
                await client.lock("x").acquire()

    asyncio.run(main())


def grpc_credentials(files: ClientFiles) -> grpc.ChannelCredentials:
    def content(path: str) -> bytes | None:
        return Path(path).read_bytes() if path else None

    return grpc.ssl_channel_credentials(content(files.ca), content(files.key), content(files.cert))


def test_grpc_works_with_a_certificate_at_each_node(doors: LocalCluster) -> None:
    # Of several locks, some are at other nodes, to which a node dials as one.
    for node in doors.nodes:
        with Caller(doors.grpc_address_of(node), credentials=grpc_credentials(own_files(doors))) as caller:
            for number in range(6):
                generation = caller.lock(f"grpc/{number}", "key").generation
                assert generation == caller.find(f"grpc/{number}").generation
                caller.unlock(f"grpc/{number}", "key")


@pytest.mark.parametrize("shown", [*WRONG, "plain"])
def test_grpc_with_a_wrong_certificate_is_refused(
    doors: LocalCluster, wrong: dict[str, ClientFiles], shown: str
) -> None:
    credentials = None if shown == "plain" else grpc_credentials(wrong[shown])
    with Caller(doors.grpc_address_of("N1"), credentials=credentials) as caller:
        with pytest.raises(grpc.RpcError) as caught:
            caller.stub.FindLockOwner(functools.partial(caller.request, "x", "key")(), timeout=PATIENCE_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# ----------------------------------------------------------------------- TLS on one side only


@pytest.mark.parametrize("port", PORTS)
def test_a_client_without_tls_is_told_that_the_port_has_it(doors: LocalCluster, port: str) -> None:
    server = address_of(doors, port)
    demand = "this port demands TLS: a client names it as lockrings://HOST:PORT"
    with pytest.raises(Unauthenticated, match=demand):
        ask_state(server, timeout_s=PATIENCE_S)
    with (
        lockring.Client(server, connect_timeout=PATIENCE_S, **options_of(ClientFiles())) as client,
        pytest.raises(Unauthenticated, match=demand),
    ):
        client.lock("x").acquire()

    async def main() -> None:
        async with lockring.aio.Client(
            server, connect_timeout=PATIENCE_S, **options_of(ClientFiles())
        ) as client:
            with pytest.raises(Unauthenticated, match=demand):
                await client.lock("x").acquire()

    asyncio.run(main())


def test_a_client_with_tls_at_a_port_without_is_told_so(steady: LocalCluster, doors: LocalCluster) -> None:
    files = own_files(doors)
    for server in (steady.address_of("N1"), steady.address_of(COORDINATOR)):
        says = "does not speak TLS: name it as lockring://"
        with pytest.raises(ProtocolError, match=says):
            ask_state(server, timeout_s=PATIENCE_S, dial=dial_by(files))
        with (
            lockring.Client(
                f"lockrings://{server}", connect_timeout=PATIENCE_S, **options_of(files)
            ) as client,
            pytest.raises(ProtocolError, match=says),
        ):
            client.lock("x").acquire()

        async def main(server: str, says: str) -> None:
            async with lockring.aio.Client(
                f"lockrings://{server}", connect_timeout=PATIENCE_S, **options_of(files)
            ) as client:
                with pytest.raises(ProtocolError, match=says):
                    await client.lock("x").acquire()

        asyncio.run(main(server, says))
        with lockring.Client(f"lockring://{server}", **options_of(files)) as client:
            client.lock("plain").acquire(timeout=PATIENCE_S).release()


def test_a_server_of_another_authority_is_not_trusted(doors: LocalCluster, tmp_path: Path) -> None:
    maker = CertMaker(tmp_path)
    maker.authorities()
    files = own_files(doors)._replace(ca=str(tmp_path / "ca.pem"))
    server = doors.address_of("N1")
    says = "its certificate is refused: .*; name the authority of its certificate with --ca or LOCKRING_CA"
    with pytest.raises(Unavailable, match=says):
        ask_state(server, timeout_s=PATIENCE_S, dial=dial_by(files))
    with (
        lockring.Client(f"lockrings://{server}", connect_timeout=1, **options_of(files)) as client,
        pytest.raises(Unavailable, match=says),
    ):
        client.lock("x").acquire()

    async def main() -> None:
        async with lockring.aio.Client(
            f"lockrings://{server}", connect_timeout=1, **options_of(files)
        ) as client:
            with pytest.raises(Unavailable, match=says):
                await client.lock("x").acquire()

    asyncio.run(main())


@pytest.mark.parametrize("port", [*PORTS, GRPC])
def test_older_versions_of_tls_are_refused(doors: LocalCluster, port: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(split_address(address_of(doors, port)), timeout=PATIENCE_S) as sock,
        pytest.raises(ssl.SSLError, match=r"protocol version|EOF occurred"),
    ):
        context.wrap_socket(sock)


# ----------------------------------------------------------------------- servers among themselves

HELLOS = {
    LOCK: PeerHello(PROTOCOL, "", "N7", 1, to_node="N1", to_incarnation=1),
    LEADER: Join(PROTOCOL, "", "N7", 1, "127.0.0.1:1", weight=1, version=0),
}
"""The first message of a server at each port."""


def as_server(address: str, cert: Path, key: Path, peer_ca: Path) -> TlsStream:
    """Dial as a server does, with any certificate."""
    paths = TlsPaths(str(cert), str(key), str(peer_ca))
    sock = socket.create_connection(split_address(address), timeout=PATIENCE_S)
    try:
        layer = TlsLayer.dial(peer_context(paths, read_files(paths)), PEER_NAME, is_server=True)
        shake_hands(sock, layer, timeout_s=PATIENCE_S)
        return TlsStream(sock, layer)
    except BaseException:
        sock.close()
        raise


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("shown", ["client", "foreign", "expired"])
def test_no_other_certificate_makes_a_server(
    doors: LocalCluster, tmp_path: Path, port: str, shown: str
) -> None:
    own = certs_of(doors)
    if shown == "client":
        files = CertMaker(own).files("client-test")
    elif shown == "foreign":
        maker = CertMaker(tmp_path)
        maker.authorities()
        files = maker.node("N1")
    else:
        past = CertMaker(own, replace=True, now=datetime.now(UTC) - timedelta(days=100))
        files = past.node("N7", days=30)
    server = address_of(doors, port)
    # With TLS 1.3, a server refuses after the dialing side's part of the handshake.
    with closing(as_server(server, files.cert, files.key, own / "peer-ca.pem")) as stream:
        stream.sendall(encode_frame(HELLOS[port]))
        with pytest.raises(TlsError) as caught:
            stream.recv(1)
    assert caught.value.fault == "refused"


@pytest.mark.parametrize("port", PORTS)
def test_a_client_that_is_let_in_may_not_say_that_it_is_a_server(doors: LocalCluster, port: str) -> None:
    """No server checks rights here: the certificate of a client is enough for all but this."""
    with closing(dial_by(own_files(doors))(address_of(doors, port), PATIENCE_S)) as stream:
        stream.sendall(encode_frame(HELLOS[port]))
        (refusal,) = FrameReader(msgspec.msgpack.Decoder(ToClient), 1 << 20).feed(stream.recv(1 << 16))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "denied"
    assert "needs a certificate of the servers' own CA" in refusal.text


@pytest.mark.parametrize("port", PORTS)
def test_a_server_that_comes_without_tls_is_refused(doors: LocalCluster, port: str) -> None:
    server = address_of(doors, port)
    with Wire(server) as wire:
        wire.send(HELLOS[port])
        refusal = wire.refusal()
    assert isinstance(refusal, Refusal)
    assert refusal.code == "unauthenticated"
    assert "a server needs --tls-cert and --peer-tls-cert" in refusal.text


def test_servers_do_not_accept_the_clients_authority_when_they_dial(
    doors: LocalCluster, tmp_path: Path
) -> None:
    """A coordinator that shows a certificate for clients is not one: nodes look for theirs, and say why not."""
    own = certs_of(doors)
    maker = CertMaker(tmp_path)
    maker.authorities()
    server, node = maker.server(["127.0.0.1"]), maker.node("N9")
    clients_ca = own / "ca.pem"
    own_server = CertMaker(own).files("server-N1")
    del node
    with running(
        *("coordinator", "--listen", address(), "--new-cluster"),
        *("--tls-cert", str(server.cert), "--tls-key", str(server.key)),
        # The other way round: what a server shows to servers is a certificate that clients' authority has issued.
        *("--peer-tls-cert", str(own_server.cert), "--peer-tls-key", str(own_server.key)),
        *("--peer-tls-ca", str(clients_ca)),
    ) as fake:
        fake.wait_for("coordinator listens on")
        where = fake.text.partition("coordinator listens on ")[2].split()[0]
        with running(*node_arguments(doors, "N8", where)) as process:
            process.wait_for("its certificate is refused")
            assert "joined" not in process.text


def node_arguments(doors: LocalCluster, name: str, coordinator: str, **changes: Path) -> list[str]:
    assert doors.certificates is not None
    settings = doors.certificates.server_settings(name, "127.0.0.1") | {
        key: str(path) for key, path in changes.items()
    }
    flags = [part for key, value in settings.items() for part in (f"--{key.replace('_', '-')}", value)]
    return ["node", "--id", name, "--listen", address(), "--no-grpc", "--coordinator", coordinator, *flags]


def test_a_node_with_a_clients_certificate_does_not_join(doors: LocalCluster) -> None:
    files = CertMaker(certs_of(doors)).files("client-test")
    arguments = node_arguments(
        doors, "N8", doors.address_of(COORDINATOR), peer_tls_cert=files.cert, peer_tls_key=files.key
    )
    with running(*arguments) as process:
        process.wait_for("it does not accept this side's certificate: it comes from another authority")
        assert "joined" not in process.text


def test_a_node_without_tls_does_not_join(doors: LocalCluster) -> None:
    with running(
        "node",
        "--id",
        "N8",
        "--listen",
        address(),
        "--no-grpc",
        "--coordinator",
        doors.address_of(COORDINATOR),
    ) as process:
        process.wait_for("this port demands TLS")
        assert "joined" not in process.text


# ----------------------------------------------------------------------- commands


def flags_of(doors: LocalCluster) -> list[str]:
    files = own_files(doors)
    return ["--server", doors.servers, "--ca", files.ca, "--cert", files.cert, "--key", files.key]


@pytest.mark.parametrize("command", [["status"], ["ring"], ["ls"], ["describe", "x"], ["groups"]])
def test_commands_work_with_certificates(doors: LocalCluster, command: list[str]) -> None:
    process = Running(*command, *flags_of(doors), "--json")
    assert process.wait() == 0, process.text


def test_a_command_without_a_certificate_ends_with_77(doors: LocalCluster) -> None:
    for command in (["status"], ["lock", "x", "--", "true"]):
        process = Running(command[0], "--server", doors.servers, "--ca", own_files(doors).ca, *command[1:])
        assert process.wait() == 77, process.text
        assert "does not let this client in" in process.text


def test_a_job_whose_lockring_is_killed_frees_its_lock_by_its_guardian(doors: LocalCluster) -> None:
    """The lease is longer than the test waits: it ends because the guardian has closed the session, over TLS."""
    with (
        running("lock", *flags_of(doors), "--ttl", "30", "guarded", "--", "sleep", "1000") as process,
        lockring.Client(doors.servers, **options_of(own_files(doors))) as client,
    ):
        eventually(lambda: client.describe("guarded").holders, lambda: process.text)
        (guardian,) = children_of(process.popen.pid)
        eventually(lambda: children_of(guardian), lambda: process.text)
        os.kill(process.popen.pid, signal.SIGKILL)
        client.lock("guarded").acquire(timeout=20).release()


def test_a_scan_of_the_ports_finds_refusals_and_nothing_else(doors: LocalCluster) -> None:
    """A stranger that speaks no TLS is answered with one refusal, an alert of TLS, or not at all."""
    frames: FrameReader[Any] = FrameReader(msgspec.msgpack.Decoder(ToClient))
    for name in (*doors.nodes, COORDINATOR):
        for sent in (b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\1\x91", b"\0" * 64, b"\x16\x03\x01\0\5hello", b"\n"):
            with socket.create_connection(split_address(doors.address_of(name)), timeout=PATIENCE_S) as sock:
                sock.sendall(sent)
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while data := sock.recv(4096):
                    answer += data
            if sent[0] == 0:
                (refusal,) = frames.feed(answer)
                assert isinstance(refusal, Refusal)
            else:
                assert not answer or answer[0] == 0x15, answer


def test_errors_of_lockring_alone_come_out_of_tls() -> None:
    """No server is there: the same error as without TLS."""
    with pytest.raises(LockringError, match="cannot be reached: connection refused"):
        ask_state("127.0.0.1:1", dial=dial_by(ClientFiles("/etc/ssl/certs/ca-certificates.crt")))
