"""A cluster over TLS while its nodes come and go, and its certificates and authorities are replaced under load."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

import lockring
from lockring.client.arguments import ServerList
from lockring.client.tls import ClientFiles, tls_of
from lockring.client.tls_dial import dial_with
from lockring.errors import ConfigError, LockringError, Unauthenticated
from lockring.net.oneshot import ask_status
from lockring.security.certs import CertMaker
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.cluster.grpc_calls import Caller
from tests.processes import PATIENCE_S, eventually, see_renewed

pytestmark = [pytest.mark.timeout(400)]

HOST = "127.0.0.1"


def options_of(cluster: LocalCluster) -> dict[str, Any]:
    assert cluster.certificates is not None
    return ClientFiles(**cluster.certificates.client_files)._asdict()


def certs_of(cluster: LocalCluster) -> Path:
    assert cluster.certificates is not None
    return cluster.certificates.directory


def test_locks_outlive_the_loss_and_the_restart_of_nodes() -> None:
    with (
        LocalCluster(nodes=3, tls=True, stabilization_s=0.3) as cluster,
        lockring.Client(cluster.servers, ttl=20, **options_of(cluster)) as client,
    ):
        grants = [client.lock(f"kept/{number}").acquire(timeout=PATIENCE_S) for number in range(60)]
        cluster.kill("N2")
        cluster.wait_until_stable()
        see_renewed(grants[0])
        cluster.restart("N2")
        cluster.wait_until_stable()
        cluster.restart(COORDINATOR)
        cluster.wait_until_stable()
        cluster.terminate("N1")
        assert cluster.wait_for_exit("N1") == 0, "drained over TLS"
        release_renewed(grants)
        client.lock("new").acquire(timeout=PATIENCE_S).release()


def release_renewed(grants: list[lockring.Grant]) -> None:
    """See that the grants of one client are held and renewed, and release them."""
    see_renewed(grants[0])
    for grant in grants:
        grant.check()
        grant.release()


class Load:
    """Threads that acquire and release, each with a client of its own, new connections among them, and what failed."""

    def __init__(self, servers: str, options: dict[str, Any]) -> None:
        self.rounds = 0
        self.failures: list[LockringError] = []
        self._over = threading.Event()
        self._between = threading.Lock()
        self._threads = [
            threading.Thread(target=work, args=(servers, options, number))
            for number, work in enumerate((self._stay, self._stay, self._come_and_go))
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Let no client begin meanwhile: it would refuse a file that is half written, or a certificate whose key is
        another file's, not there yet."""
        with self._between:
            yield

    def see_rounds(self, count: int = 20) -> None:
        """Wait until so many more have succeeded."""
        wanted = self.rounds + count
        eventually(
            lambda: self.failures or self.rounds >= wanted, lambda: f"{wanted} rounds, not {self.rounds}"
        )
        assert self.failures == []

    def _stay(self, servers: str, options: dict[str, Any], number: int) -> None:
        with lockring.Client(servers, ttl=20, **options) as client:
            while not self._over.wait(0.03):
                self._work(client, number)

    def _come_and_go(self, servers: str, options: dict[str, Any], number: int) -> None:
        while not self._over.wait(0.05):
            try:
                with self._between:
                    client = lockring.Client(servers, ttl=20, **options)
            except ConfigError as error:
                self._fail(error)
                return
            with client:
                self._work(client, number)

    def _work(self, client: lockring.Client, number: int) -> None:
        try:
            for slot in range(3):
                client.lock(f"load/{number}/{slot}").acquire(timeout=PATIENCE_S).release()
        except LockringError as error:
            self._fail(error)
        self.rounds += 1

    def _fail(self, error: LockringError) -> None:
        self.failures.append(error)
        self._over.set()


def see_certificate(cluster: LocalCluster, name: str, until_s: float) -> None:
    """Wait until a server says that its certificates end at about this time."""
    dial = dial_with(tls_of(ServerList([]), ClientFiles(**options_of(cluster))))

    def is_there() -> bool:
        found = ask_status(cluster.address_of(name), timeout_s=PATIENCE_S, dial=dial).certificates
        assert [each.side for each in found] == ["clients", "servers"]
        return all(abs(each.not_after_s - until_s) < 3600 for each in found)

    eventually(is_there, lambda: f"the new certificates of {name}")


@contextmanager
def held_throughout(cluster: LocalCluster) -> Iterator[None]:
    """Locks that are held and renewed all the while, and connections that are never dropped."""
    with lockring.Client(cluster.servers, ttl=20, **options_of(cluster)) as client:
        grants = [client.lock(f"held/{number}").acquire(timeout=PATIENCE_S) for number in range(30)]
        yield
        release_renewed(grants)


def everywhere(cluster: LocalCluster) -> list[str]:
    return [*cluster.nodes, COORDINATOR]


def test_certificates_are_replaced_under_load() -> None:
    with LocalCluster(nodes=3, tls=True, grpc=True, **CALM) as cluster:
        assert cluster.certificates is not None
        options = options_of(cluster)
        with held_throughout(cluster), Load(cluster.servers, options) as load:
            for days in (300, 200):
                load.see_rounds()
                maker = CertMaker(certs_of(cluster), replace=True)
                for name in everywhere(cluster):
                    # One file after the other, as tools do it: half of a pair stands there for a moment.
                    maker.server([HOST, "localhost"], stem=f"server-{name}", days=days)
                    maker.node(name, days=days)
                with load.replacing():
                    maker.client("test", days=days)
                until_s = datetime.now(UTC).timestamp() + days * 86_400
                for name in everywhere(cluster):
                    see_certificate(cluster, name, until_s)
                load.see_rounds()
        for name in everywhere(cluster):
            assert "lost the connection" not in cluster.log_of(name), "connections keep what they began with"
        assert_new_links_work(cluster)


def assert_new_links_work(cluster: LocalCluster) -> None:
    """Servers find each other again by what their files hold now, and gRPC shows the new certificate too."""
    cluster.terminate("N3")
    assert cluster.wait_for_exit("N3") == 0
    cluster.restart("N3")
    cluster.wait_until_stable()
    files = ClientFiles(**options_of(cluster))
    credentials = grpc.ssl_channel_credentials(
        *(Path(each).read_bytes() for each in (files.ca, files.key, files.cert))
    )
    with Caller(cluster.grpc_address_of("N1"), credentials=credentials) as caller:
        caller.lock("by grpc", "key")
        caller.unlock("by grpc", "key")


def test_authorities_are_replaced_under_load() -> None:
    """First both are trusted, then the new ones issue, then the old ones are dropped; no connection need be."""
    with LocalCluster(nodes=3, tls=True, grpc=True, **CALM) as cluster:
        certs = certs_of(cluster)
        options = options_of(cluster)
        old_client = {name: (certs / f"old-{name}") for name in ("cert", "key")}
        for name, path in old_client.items():
            path.write_bytes(Path(options[name]).read_bytes())
        new = certs / "new"
        maker = CertMaker(new)
        maker.authorities()
        for name in everywhere(cluster):
            maker.server([HOST, "localhost"], stem=f"server-{name}")
            maker.node(name)
        maker.client("test")
        stems = ("ca", "peer-ca")
        with held_throughout(cluster), Load(cluster.servers, options) as load:
            load.see_rounds()
            with load.replacing():
                for stem in stems:
                    both = (certs / f"{stem}.pem").read_bytes() + (new / f"{stem}.pem").read_bytes()
                    (certs / f"{stem}.pem").write_bytes(both)
            for name in everywhere(cluster):
                see_logged(cluster, name, "new TLS files for clients are in use", 1)
                see_logged(cluster, name, "new TLS files for servers are in use", 1)
            load.see_rounds()
            with load.replacing():
                for path in sorted(new.glob("*.pem")):
                    if path.stem.removesuffix("-key") not in stems:
                        (certs / path.name).write_bytes(path.read_bytes())
            for name in everywhere(cluster):
                eventually(functools.partial(is_in_use, cluster, name, new))
            load.see_rounds()
            with load.replacing():
                for stem in stems:
                    (certs / f"{stem}.pem").write_bytes((new / f"{stem}.pem").read_bytes())
            load.see_rounds()
            stale = options | {name: str(path) for name, path in old_client.items()}
            for name in everywhere(cluster):
                eventually(functools.partial(is_refused, cluster.address_of(name), stale))
            load.see_rounds()
        assert_new_links_work(cluster)


def see_logged(cluster: LocalCluster, name: str, text: str, count: int) -> None:
    eventually(
        lambda: cluster.log_of(name).count(text) >= count, lambda: f"{text!r} in\n{cluster.log_of(name)}"
    )


def is_in_use(cluster: LocalCluster, name: str, new: Path) -> bool:
    """Whether a server shows a certificate of the new authority alone."""
    files = ClientFiles(**options_of(cluster))._replace(ca=str(new / "ca.pem"))
    try:
        ask_status(
            cluster.address_of(name), timeout_s=PATIENCE_S, dial=dial_with(tls_of(ServerList([]), files))
        )
    except LockringError:
        return False
    return True


def is_refused(address: str, options: dict[str, Any]) -> bool:
    dial = dial_with(tls_of(ServerList([]), ClientFiles(**options)))
    try:
        ask_status(address, timeout_s=PATIENCE_S, dial=dial)
    except Unauthenticated:
        return True
    return False


def test_a_client_reads_its_files_again_with_each_connection() -> None:
    with LocalCluster(nodes=1, tls=True) as cluster:
        certs = certs_of(cluster)
        past = CertMaker(certs, replace=True, now=datetime.now(UTC) - timedelta(days=100))
        past.client("test", days=30)
        with lockring.Client(cluster.servers, **options_of(cluster)) as client:
            with pytest.raises(Unauthenticated, match="it has expired"):
                client.lock("x").acquire()
            CertMaker(certs, replace=True).client("test")
            # The client looks at most once a second.
            eventually(lambda: acquired(client))


def acquired(client: lockring.Client) -> bool:
    try:
        client.lock("x").acquire(timeout=PATIENCE_S).release()
    except Unauthenticated:
        return False
    return True


def test_half_written_files_are_not_used_and_named_in_the_log() -> None:
    with LocalCluster(nodes=1, tls=True) as cluster:
        for name in everywhere(cluster):
            key = certs_of(cluster) / f"server-{name}-key.pem"
            whole = key.read_bytes()
            key.write_bytes(whole[:50])
            see_logged(cluster, name, "the TLS files for clients have changed and are not used yet", 1)
            key.write_bytes(whole)
        with lockring.Client(cluster.servers, **options_of(cluster)) as client:
            client.lock("x").acquire(timeout=PATIENCE_S).release()
