"""Drills for locks that are shared, and for watching them."""

from __future__ import annotations

from tests.sim.scenarios import TTL_MS, Scenario
from tests.sim.switches import drill


@drill
def shared_beside_one_alone() -> None:
    """A lock is held alone when others come who want to share it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (alone,) = cluster.hold(one, cluster.name)
    sharing = [other.take(cluster.name, ttl_ms=TTL_MS, shared=True) for _ in range(2)]
    cluster.run(1)
    cluster.let_go(one, alone)
    cluster.wait(lambda: all(task.outcome == "held" for task in sharing), 1)


@drill
def alone_beside_shared() -> None:
    """A lock is shared by two when somebody comes who wants it alone."""
    cluster = Scenario(clients=3)
    cluster.trust_nothing_inside()
    one, two, other = cluster.simulation.clients
    sharing = [client.take(cluster.name, ttl_ms=TTL_MS, shared=True) for client in (one, two)]
    cluster.wait(lambda: all(task.outcome == "held" for task in sharing), 1)
    alone = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(1)
    cluster.let_go(one, sharing[0])
    cluster.run(1)
    cluster.let_go(two, sharing[1])
    cluster.wait(lambda: alone.outcome == "held", 1)


@drill
def mode_not_copied() -> None:
    """The primary dies while one holds the lock alone, and others want to share it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (alone,) = cluster.hold(one, cluster.name)
    cluster.crash(cluster.primary())
    sharing = other.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.run(6)
    cluster.let_go(one, alone)
    cluster.wait(lambda: sharing.outcome == "held", 5)


@drill
def watch_begun_again() -> None:
    """Whoever watches a lock loses its connection, and the lock is taken before there is another one."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    cluster.run(1)
    primary = cluster.primary()
    cluster.cut(watcher, primary, 60)
    cluster.break_connections(watcher, primary)
    (held,) = cluster.hold(other, cluster.name)
    cluster.mend(watcher, primary)
    cluster.wait(lambda: watcher.watches[cluster.name].gaps == 1, 10)
    cluster.let_go(other, held)
    cluster.run(1)
    cluster.demand(
        watcher.watches[cluster.name].gaps == 1, "WATCH", "there is a gap where nothing was missed"
    )


@drill
def watch_last_only() -> None:
    """One releases what another waits for, so that two things happen in one turn."""
    cluster = Scenario(clients=3)
    watcher, one, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    (held,) = cluster.hold(one, cluster.name)
    waiting = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.let_go(one, held)
    cluster.wait(lambda: waiting.outcome == "held", 1)
    cluster.run(0.5)
    seen = watcher.watches[cluster.name]
    cluster.demand(seen.gaps == 0, "WATCH", "there is a gap where nothing was missed")


@drill
def watch_forgets_tokens() -> None:
    """A watched lock is taken, and given up again."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    (held,) = cluster.hold(other, cluster.name)
    cluster.run(0.5)
    cluster.let_go(other, held)
    cluster.run(0.5)


@drill
def watch_overflow() -> None:
    """More happens to a watched lock than is kept, while its primary may not tell of it."""
    cluster = Scenario()
    watcher, other = cluster.simulation.clients
    watcher.watch(cluster.name)
    cluster.run(1)
    primary, backup = cluster.primary(), cluster.backup()
    cluster.silence(backup, primary, 60)
    cluster.silence(primary, cluster.coordinator, 60)  # it cannot ask to do without its backup
    cluster.wait(lambda: not cluster.serves(primary), 5)
    with cluster.few_events_kept():
        for _ in range(4):
            other.take(cluster.name, ttl_ms=TTL_MS)
        cluster.run(0.5)
        cluster.unsilence(primary, cluster.coordinator)
        cluster.wait(lambda: cluster.serves(primary), 10)
        cluster.run(1)
    cluster.demand(watcher.watches[cluster.name].gaps > 0, "WATCH", "nothing says that something was missed")
