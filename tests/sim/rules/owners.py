"""Rules of sessions: each belongs to the identity that has opened it."""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.core.access import EVERYTHING, Grantee, Quota
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockHolder, Session
from lockring.ids import ConnectionId
from lockring.protocol import Put, Release
from lockring.protocol.identities import Identity
from tests.sim.framework.workload import ClientShell, Task
from tests.sim.rules.switches import Change, drill, mutant
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def anyone_releases() -> list[Change]:
    """A session may be used by any identity that knows its id."""

    def changed(
        self: AccessGuard, connection: ConnectionId, access: Grantee, message: Any, session: Session
    ) -> Any:
        return message

    return [(AccessGuard, "in_session", changed)]


@drill
def drill_anyone_releases() -> None:
    """A client that waits for a lock releases it in the name of the holder, whose session it has seen."""
    cluster = _with_identities()
    holder, other = cluster.simulation.clients
    (held,) = cluster.hold(holder, cluster.name)
    _release_as_another(cluster, other, held)


@mutant
def copy_forgets_owner() -> list[Change]:
    """A copy knows the sessions of its primary's holders, and not to which identity they belong."""
    put = LockTable.put

    def changed(self: LockTable, mutation: Put, now_ns: int) -> LockHolder:
        return put(self, msgspec.structs.replace(mutation, identity=""), now_ns)

    return [(LockTable, "put", changed)]


@drill
def drill_copy_forgets_owner() -> None:
    """A primary dies, and its backup hears first from a client that uses the session of another."""
    cluster = _with_identities()
    holder, other = cluster.simulation.clients
    (held,) = cluster.hold(holder, cluster.name)
    cluster.run(1)
    primary = cluster.primary()
    cluster.cut(holder, cluster.backup(), 4)
    cluster.crash(primary)
    cluster.wait(lambda: not cluster.simulation.unserved(), 10)
    _release_as_another(cluster, other, held)


def _with_identities() -> Scenario:
    """A cluster whose nodes know each client's process by its name, and let it do everything in its own sessions."""
    cluster = Scenario()

    def access_of(process: str) -> Grantee:
        identity = Identity("certificate", process)
        return Grantee(identity, EVERYTHING, Quota(str(identity)))

    for node in cluster.simulation.nodes:
        node.access_of = access_of
    return cluster


def _release_as_another(cluster: Scenario, client: ClientShell, task: Task) -> None:
    """Let a client wait for a lock, and release it in the session of its holder."""
    wanted = client.take(cluster.name, ttl_ms=TTL_MS)
    node = cluster.primary()

    def connection() -> int | None:
        ends = node._clients.items()
        return next((number for number, end in ends if end.other.process is client and end.open), None)

    cluster.wait(lambda: connection() is not None and wanted.outcome == "waiting", 5)
    cluster.run(0.5)
    ticket, number = task.ticket, connection()
    assert node.core is not None
    assert ticket is not None
    assert number is not None
    foreign = Release(1 << 40, ticket.session.id, ticket.acquisition, ticket.name)
    node.core.receive(ConnectionId(number), foreign, now_ns=node.now_ns())
    node.wake(1_000)
    cluster.run(1)
