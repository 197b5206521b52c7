"""`lockring status` where coordinators share a store: the leader, the standbys, and whether the store works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from lockring.net.oneshot import ask_state
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S, eventually
from tests.stores.servers import PostgresServer

pytestmark = [pytest.mark.timeout(400)]


def status(server: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lockring", "status", "--server", server, *flags],
        env={name: value for name, value in os.environ.items() if not name.startswith("LOCKRING_")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert "s3cret" not in done.stdout + done.stderr
    return done.stdout


def found(server: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(status(server, "--json"))
    return facts


def says(server: str, *, works: bool) -> bool:
    """Whether a coordinator is found that says of its store that it works, or that it does not."""
    store = found(server)["store"]
    return store is not None and store["works"] == works


def refused(server: str) -> dict[str, Any]:
    """The facts, once a coordinator says that its store refuses connections; none before."""
    facts = found(server)
    return facts if "Connection refused" in ((facts["store"] or {}).get("problem") or "") else {}


def test_status_shows_the_leader_the_standbys_and_the_store_that_works_or_since_when_and_why_not(
    postgresql: PostgresServer, name: str
) -> None:
    place = f"postgresql://lockring@127.0.0.1:{postgresql.port}/postgres#{name}"
    with LocalCluster(
        nodes=2, coordinators=2, store=postgresql.url(name=name), stabilization_s=0.3
    ) as cluster:
        leader = cluster.leader
        (standby,) = (each for each in cluster.coordinators if each != leader)
        addresses = [cluster.address_of(leader), cluster.address_of(standby)]
        eventually(lambda: found(cluster.servers)["standbys"], cluster.logs)
        for server in (cluster.servers, *addresses):
            facts = found(server)
            assert (facts["leader"], facts["standbys"]) == (addresses[0], addresses[1:])
            assert facts["store"] == {
                "kind": "PostgreSQL",
                "place": place,
                "works": True,
                "failing_s": None,
                "problem": None,
            }
        text = status(cluster.servers)
        assert f"leader {addresses[0]}, standing by: {addresses[1]}\n" in text
        assert f"store PostgreSQL ({place}): works\n" in text

        postgresql.kill()
        try:
            eventually(lambda: says(cluster.servers, works=False), cluster.logs)
            # A call that was under way failed in another way.
            facts = eventually(lambda: refused(cluster.servers), cluster.logs)
            assert facts["health"] == "degraded"
            assert facts["store"]["failing_s"] >= 0
            assert any("the coordinator's store has not worked for" in each for each in facts["remarks"])
            assert f"store PostgreSQL ({place}): has not worked for" in status(cluster.servers)
            # With the leader gone, a standby that is named still answers for the store.
            cluster.kill(leader)
            # It may have read the store last just before the end of it, so it may take a moment to know.
            both = f"{cluster.servers},{addresses[1]}"
            eventually(lambda: says(both, works=False), cluster.logs)
            assert not found(both)["coordinator_answers"]
            # Its state may be old by then, which it says.
            eventually(lambda: ask_state(addresses[1]).age_s > 5, cluster.logs)
            assert "s old" in ask_state(addresses[1]).note
        finally:
            postgresql.start()
        eventually(lambda: found(f"{cluster.servers},{addresses[1]}")["leader"] == addresses[1], cluster.logs)
        eventually(lambda: says(addresses[1], works=True), cluster.logs)
        facts = found(addresses[1])
        assert facts["standbys"] == []
        assert "none stands by" in status(addresses[1])
