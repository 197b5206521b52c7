"""The move of a running cluster's state from store to store: the locks that are held stay held, and tokens grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate
from lockring.errors import ProtocolError, Unavailable
from lockring.ids import TermId, Version
from lockring.net.oneshot import ask_status
from lockring.store.postgresql import PostgresStore
from lockring.testing import COORDINATOR, LocalCluster
from tests.processes import PATIENCE_S, eventually
from tests.stores.load import Holder
from tests.stores.servers import PostgresServer
from tests.stores.servers_etcd import EtcdServer

pytestmark = [pytest.mark.timeout(400)]

LOCKS = 50
SETTLED_S = 60.0


def command(*words: str, code: int = 0) -> tuple[str, str]:
    """Run `lockring coordinator` with the words, and return its output and its errors."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LOCKRING_")}
    done = subprocess.run(
        [sys.executable, "-m", "lockring", "coordinator", *words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        yield cluster


def leads(cluster: LocalCluster) -> bool:
    """Whether the coordinator leads and all nodes are with it."""
    try:
        status = ask_status(cluster.address_of(COORDINATOR))
    except (ProtocolError, Unavailable):
        return False
    return not status.note and all(0 <= ago_ms < 5_000 for _, ago_ms in status.heard)


def test_locks_stay_held_while_the_state_moves_from_a_directory_to_etcd_to_postgresql_and_back(
    cluster: LocalCluster, etcd: EtcdServer, postgresql: PostgresServer, name: str, tmp_path: Path
) -> None:
    first, last = str(cluster.directory / "data"), str(tmp_path / "last")
    places = [
        ("--data-dir", first),
        ("--store", etcd.url(name)),
        ("--store", postgresql.url(name=name)),
        ("--data-dir", last),
    ]
    holder = Holder(cluster.servers, LOCKS)
    for number, (old, new) in enumerate(pairwise(places)):
        before = cluster.state()
        reigns = [slot.since for slot in before.slots]
        file = str(tmp_path / f"{number}.json")
        began_s = time.monotonic()
        cluster.terminate(COORDINATOR)
        assert cluster.wait_for_exit(COORDINATOR) == 0
        command("export", *old, file)
        _, errors = command("import", *new, file)
        assert errors == "", "nothing is lost that would be worth a warning"
        is_shared = new[0] == "--store"
        cluster.use_store(new[1] if is_shared else "", data_dir=None if is_shared else last)
        cluster.restart(COORDINATOR)
        eventually(lambda: leads(cluster), cluster.logs)
        print(f"moved from {old[0]} to {new[0]} in {time.monotonic() - began_s:.1f} s")
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        holder.check("the state has moved")
        after = cluster.state()
        assert (after.cluster, [slot.since for slot in after.slots]) == (before.cluster, reigns)
        assert after.version > before.version
        holder.take_again()
    # The moved state is one that a failover can go on from.
    cluster.kill(cluster.nodes[0])
    cluster.wait_until_stable(timeout_s=SETTLED_S)
    holder.check("a node was killed")
    holder.take_again()
    holder.client.close()


@pytest.mark.slow
def test_locks_outlive_every_process_of_a_cluster_whose_state_moves_meanwhile(
    etcd: EtcdServer, name: str, tmp_path: Path
) -> None:
    file = str(tmp_path / "state.json")
    with LocalCluster(nodes=3, durability="process", stabilization_s=0.3) as cluster:
        holder = Holder(cluster.servers, LOCKS, ttl_s=30)
        for node in cluster.nodes:
            cluster.kill(node)
        cluster.terminate(COORDINATOR)
        assert cluster.wait_for_exit(COORDINATOR) == 0
        command("export", "--data-dir", str(cluster.directory / "data"), file)
        command("import", "--store", etcd.url(name), file)
        cluster.use_store(etcd.url(name))
        for process in (COORDINATOR, *cluster.nodes):
            cluster.restart(process)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        holder.check("everything was killed, and the state has moved")
        holder.take_again()
        holder.client.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["etcd", "postgresql"])
def test_a_store_that_coordinators_use_is_neither_exported_nor_imported(
    request: pytest.FixtureRequest, kind: str, name: str, tmp_path: Path
) -> None:
    server: EtcdServer | PostgresServer = request.getfixturevalue(kind)
    url, file = server.url(name=name), str(tmp_path / "state.json")
    with LocalCluster(nodes=1, coordinators=2, store=url, stabilization_s=0.3) as cluster:
        eventually(lambda: ask_status(cluster.address_of(cluster.leader)).standbys, cluster.logs)
        _, errors = command("export", "--store", url, str(tmp_path / "none.json"), code=73)
        assert "is in use: a coordinator at 127.0.0.1:" in errors
        assert "s3cret" not in errors
        # A standby alone keeps it in use too.
        (standby,) = (each for each in cluster.coordinators if each != cluster.leader)
        cluster.terminate(cluster.leader)
        eventually(lambda: cluster.leader == standby, cluster.logs)
        command("export", "--store", url, str(tmp_path / "none.json"), code=73)
        version = cluster.state().version
        cluster.terminate(standby)
        assert cluster.wait_for_exit(standby) == 0
        command("export", "--store", url, file)
        # The mark ends a coordinator that is started there all the same; the file takes the mark away.
        _, errors = command("--listen", "127.0.0.1:0", "--store", url, code=73)
        assert f"its state was moved into the file {file}, by " in errors
        assert "s3cret" not in errors
        _, errors = command("import", "--store", url, "--force", file)
        assert "was left: on " in errors
        assert "s3cret" not in errors
        assert int(json.loads(Path(file).read_text())["state"]["version"]) >= version
        cluster.restart(standby)
        eventually(lambda: cluster.leader == standby, cluster.logs)
        _, errors = command("import", "--store", url, "--force", file, code=73)
        assert "is in use" in errors


def waiting_under(cluster: LocalCluster, name: str) -> int:
    """How many slots wait for earlier leases to end under a coordinator; 0 before it leads."""
    try:
        return ask_status(cluster.address_of(name)).waiting
    except (ProtocolError, Unavailable):  # it closes all connections when it begins to lead
        return 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["etcd", "postgresql"])
def test_a_forced_import_raises_the_version_and_leaves_the_store_to_the_next_coordinator(
    request: pytest.FixtureRequest, kind: str, name: str, tmp_path: Path
) -> None:
    server: EtcdServer | PostgresServer = request.getfixturevalue(kind)
    url, file = server.url(name=name), str(tmp_path / "state.json")
    with LocalCluster(nodes=1, coordinators=1, store=url, stabilization_s=0.3) as cluster:
        (coordinator,) = cluster.coordinators
        cluster.terminate(coordinator)
        assert cluster.wait_for_exit(coordinator) == 0
        command("export", "--copy", "--store", url, file)
        cluster.restart(coordinator)
        eventually(lambda: cluster.leader == coordinator, cluster.logs)
        cluster.wait_until_stable(timeout_s=SETTLED_S)
        newer = cluster.state().version
        cluster.terminate(coordinator)
        assert cluster.wait_for_exit(coordinator) == 0
        _, errors = command("import", "--store", url, file, code=73)
        assert "has a state already" in errors
        out, _ = command("import", "--store", url, "--force", "--json", file)
        assert "newer state of the same cluster" in json.loads(out)["waits"]
        assert int(json.loads(out)["version"]) > newer
        # The node knows that it serves no longer, and the wait for its lease is announced.
        cluster.restart(coordinator)
        eventually(lambda: cluster.leader == coordinator, cluster.logs)
        eventually(lambda: waiting_under(cluster, coordinator), cluster.logs)


def test_an_import_writes_under_a_term_of_its_own(
    postgresql: PostgresServer, name: str, tmp_path: Path
) -> None:
    """A coordinator that stood still during the whole move writes nothing when it goes on."""
    store = PostgresStore(postgresql.url(name=name))
    former = Candidate(TermId("former"), "h:1")
    store.campaign(former, 1_000)
    state = ClusterState(cluster="c", version=Version(time.time_ns()), term=former.term)  # type: ignore[arg-type]
    assert store.write(Version(0), state)
    store.resign(former.term)
    file = str(tmp_path / "state.json")
    command("export", "--store", postgresql.url(name=name), file)
    document = json.loads(Path(file).read_text())
    assert document["source"].startswith("PostgreSQL (postgresql://lockring@")
    assert "s3cret" not in json.dumps(document)
    command("import", "--store", postgresql.url(name=f"{name}-2"), file)
    moved = PostgresStore(postgresql.url(name=f"{name}-2"))
    assert not moved.write(state.version, state)
    assert moved.election().leader is None
    store.close()
    moved.close()
