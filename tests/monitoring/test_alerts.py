"""Each alert fires at real servers when what it is about is provoked, and none does before."""

from __future__ import annotations

import contextlib
import resource
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import lockring
from lockring.errors import LockringError
from lockring.protocol import Acquire
from lockring.security.certs import CertMaker
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.guarded import Guarded
from tests.cluster.running import running
from tests.cluster.test_http import ask
from tests.cluster.wire import Wire
from tests.monitoring.server import Prometheus, names_of_alerts
from tests.processes import PATIENCE_S, address, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LEASES = {"stabilization_s": 0.3, "backup_lease_s": 1.0, "coordinator_lease_s": 20.0, "member_lease_s": 3.0}
BUSY = {"LockringEventLoopSlow"}
"""Alerts about the machine, which other tests may bring on."""


def targets(cluster: LocalCluster) -> list[str]:
    return [cluster.http_address_of(each) for each in (*cluster.coordinators, *cluster.nodes)]


@contextmanager
def watched(directory: Path, cluster: LocalCluster) -> Iterator[Prometheus]:
    with cluster, Prometheus(directory / "prometheus", targets(cluster)) as prometheus:
        yield prometheus


def client_of(cluster: LocalCluster) -> lockring.Client:
    return lockring.Client(cluster.servers, connect_timeout=PATIENCE_S)


def test_a_cluster_that_works_brings_on_no_alert_and_its_loss_brings_on_the_right_ones(
    tmp_path: Path,
) -> None:
    cluster = LocalCluster(nodes=2, http=True, **LEASES)
    with watched(tmp_path, cluster) as prometheus:
        with client_of(cluster) as client, client.lock("x"):
            eventually(lambda: sum(prometheus.value("lockring_locks")) == 1)
        eventually(lambda: sum(prometheus.value("lockring_releases_total")) >= 1)
        prometheus.is_calm_about(*set(names_of_alerts()) - BUSY)
        assert prometheus.value("sum(lockring_slots{role='serving'})") == [4096]
        cluster.kill("N2")
        prometheus.fires("LockringSlotsWithoutBackup")
        eventually(lambda: prometheus.value("sum(lockring_slot_moves_total{kind='takeover'})")[0] > 0)
        cluster.kill("N1")
        prometheus.fires("LockringSlotsWithoutPrimary")


def test_the_loss_of_the_coordinator_is_seen_before_the_nodes_stop_to_serve(tmp_path: Path) -> None:
    cluster = LocalCluster(nodes=1, http=True, **LEASES)
    with watched(tmp_path, cluster) as prometheus:
        prometheus.is_calm_about("LockringNoLeader", "LockringCoordinatorLeaseShort")
        cluster.kill(COORDINATOR)
        prometheus.fires("LockringNoLeader")
        prometheus.fires("LockringCoordinatorLeaseShort")
        assert prometheus.value("lockring_coordinator_lease_remaining_seconds")[0] < 10


def test_lost_locks_and_a_queue_that_grows_are_seen(tmp_path: Path) -> None:
    cluster = LocalCluster(nodes=1, http=True, **LEASES)
    with watched(tmp_path, cluster) as prometheus, ExitStack() as stack:
        prometheus.is_calm_about("LockringLocksLost", "LockringWaitersGrow")
        with Wire(cluster.address_of("N1")) as wire:
            wire.greet()
            wire.send(Acquire(1, "a" * 16, 2_000, "a client that falls silent", 1, "x"))
            eventually(lambda: sum(prometheus.value("lockring_grants_total")) == 1)
        prometheus.fires("LockringLocksLost")
        client = stack.enter_context(client_of(cluster))
        stack.enter_context(client.lock("y"))
        for number in range(30):
            stack.enter_context(running("lock", "y", "--server", cluster.servers, "--", "true"))
            if "LockringWaitersGrow" in prometheus.firing():
                break
            eventually(lambda: sum(prometheus.value("lockring_lock_waiters")) > number)  # noqa: B023
        prometheus.fires("LockringWaitersGrow")


def test_a_process_that_is_paused_is_seen(tmp_path: Path) -> None:
    cluster = LocalCluster(nodes=1, http=True, **LEASES)
    with watched(tmp_path, cluster) as prometheus:
        before = prometheus.value("sum(lockring_event_loop_lag_seconds_bucket{le='+Inf'})")
        assert before[0] > 0

        def pauses() -> bool:
            cluster.freeze("N1")
            time.sleep(0.5)
            cluster.thaw("N1")
            time.sleep(1.5)  # in which it is scraped
            return "LockringEventLoopSlow" in prometheus.firing()

        eventually(pauses, lambda: str(prometheus.value("lockring_event_loop_lag_seconds_bucket")))


def test_a_certificate_that_ends_soon_and_refused_clients_are_seen(tmp_path: Path) -> None:
    access = AccessSettings(
        auth="enforcing", acl_file=str(tmp_path / "acl.toml"), audit_log=str(tmp_path / "audit.log")
    )
    cluster = LocalCluster(nodes=1, tls=True, http=True, access=access, client_auth="optional", **LEASES)
    guarded = Guarded(cluster, tmp_path)
    guarded.rules["web-1"] = ["acquire jobs/*"]
    guarded.write()
    text = guarded.acl.read_text().replace('name = "web-1"\n', 'name = "web-1"\nlimits = { locks = 1 }\n', 1)
    guarded.acl.write_text(text)
    with cluster:
        files = cluster.certificates.client_files
        scraped = Prometheus(
            tmp_path / "prometheus", targets(cluster), tls={"ca": files["ca"]}, token=guarded.tokens["idle"]
        )
        with scraped as prometheus, guarded.client("web-1") as client:
            prometheus.is_calm_about(
                "LockringCertificateExpires", "LockringRefusesClients", "LockringThrottles"
            )
            where = targets(cluster)[1]
            assert ask(where, "/metrics", files=guarded.bare).status == 401
            assert ask(where, "/debug/tasks", files=guarded.bare, token=guarded.tokens["idle"]).status == 403
            with client.lock("jobs/1"):
                with contextlib.suppress(LockringError):
                    client.lock("jobs/2").acquire(timeout=0.5)
                eventually(lambda: sum(prometheus.value("lockring_throttled_total")) > 0)
                with contextlib.suppress(LockringError):
                    client.lock("jobs/2").acquire(timeout=0.5)
            prometheus.fires("LockringThrottles")

            def refuses() -> bool:
                for _ in range(5):
                    ask(where, "/metrics", files=guarded.bare)
                    with contextlib.suppress(LockringError):
                        client.lock("other").acquire(timeout=0.5)
                return "LockringRefusesClients" in prometheus.firing()

            eventually(refuses, lambda: str(prometheus.value("lockring_denied_total")))
            assert sum(prometheus.value("lockring_denied_total{act='acquire'}")) > 0
            maker = CertMaker(cluster.certificates.directory, replace=True)
            maker.server(["127.0.0.1", "localhost"], stem="server-N1", days=3)
            prometheus.fires("LockringCertificateExpires")


def test_a_journal_and_a_store_that_cannot_be_written_are_seen(tmp_path: Path) -> None:
    listen, leader = address(), address()
    http = [address(), address()]
    leads = (
        "coordinator",
        "--listen",
        leader,
        "--data-dir",
        str(tmp_path / "state"),
        "--http-listen",
        http[0],
    )
    serves = ("node", "--id", "n1", "--listen", listen, "--coordinator", leader, "--no-grpc")
    keeps = ("--data-dir", str(tmp_path / "n1"), "--http-listen", http[1])
    with (
        running(*leads, "--backup-lease", "1", "--stabilization", "0.3") as coordinator,
        running(*serves, *keeps) as node,
        Prometheus(tmp_path / "prometheus", http) as prometheus,
        lockring.Client(listen, connect_timeout=PATIENCE_S) as client,
    ):
        with client.lock("x"):
            pass
        prometheus.is_calm_about("LockringJournalFailing", "LockringStoreFails")
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(node.popen.pid, resource.RLIMIT_FSIZE, (0, hard))
        with contextlib.suppress(LockringError):
            client.lock("y").acquire(timeout=1)
        prometheus.fires("LockringJournalFailing")
        resource.prlimit(coordinator.popen.pid, resource.RLIMIT_FSIZE, (0, hard))
        with running(
            "node", "--id", "n2", "--listen", address(), "--coordinator", leader, "--no-grpc", "--no-http"
        ):
            prometheus.fires("LockringStoreFails")


def test_each_alert_has_its_test() -> None:
    text = Path(__file__).read_text()
    assert [
        each for each in names_of_alerts() if f'fires("{each}")' not in text and f'"{each}" in' not in text
    ] == []


def test_a_scrape_of_a_live_server_is_one_page() -> None:
    where = address()
    places = ("--listen", address(), "--coordinator-listen", address(), "--http-listen", where)
    with running("serve", *places, "--no-grpc", "--in-memory", "--new-cluster") as process:
        process.wait_for(f"HTTP at {where}")
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE_S) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            assert b"lockring_coordinator_leader" in answer.read()
