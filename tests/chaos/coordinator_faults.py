"""Faults of the coordinators, and of the store that they share.

A store is never away for longer than the nodes may work without a coordinator (30 s), less the time in which a new
leader is found: nothing may be lost then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.chaos.faults import CUT_S, DOWN_S, EXIT_S_MAX, Fault, FaultFailed, Faults

FREEZE_ALONE_S: Final = (0.5, 10.0)
"""Of the only coordinator: no other one decides meanwhile."""

FREEZE_LEADER_S: Final = (0.5, 40.0)
"""Of one among several: also for far longer than its lead lasts, so that it finds another one leading."""

STORE_AWAY_S: Final = (1.0, 12.0)


def kill_coordinator(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGKILL of the one that leads, and a restart."""
    return _kill(faults, kind, [faults.leader()], "the coordinator")


def kill_standby(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGKILL of one that stands by, and a restart."""
    standbys = _standbys(faults)
    return _kill(faults, kind, [faults.rng.choice(standbys)], "the standby") if standbys else None


def kill_coordinators(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGKILL of all at once, and a restart of all."""
    coordinators = faults.cluster.coordinators
    return _kill(faults, kind, coordinators, "all coordinators") if len(coordinators) > 1 else None


def stop_coordinator(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGTERM of the one that leads: it says that it goes. Then it comes back."""
    cluster, leader = faults.cluster, faults.leader()
    down_s = faults.rng.uniform(*DOWN_S)

    def come_back() -> None:
        code = cluster.wait_for_exit(leader, timeout_s=EXIT_S_MAX)
        if code:
            raise FaultFailed(f"{leader} was told to end and exited with {code}")
        cluster.restart(leader)

    return Fault(
        kind, f"terminate the coordinator ({leader}), restart it after {down_s:.1f} s", down_s,
        lambda: cluster.terminate(leader), come_back, stops_decisions=len(cluster.coordinators) == 1,
    )  # fmt: skip


def freeze_coordinator(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault:
    """SIGSTOP of the one that leads."""
    is_alone = len(faults.cluster.coordinators) == 1
    return faults.freeze(kind, faults.leader(), FREEZE_ALONE_S if is_alone else FREEZE_LEADER_S)


def freeze_standby(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGSTOP of one that stands by."""
    standbys = _standbys(faults)
    return faults.freeze(kind, faults.rng.choice(standbys), FREEZE_ALONE_S) if standbys else None


def cut_coordinators(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """The leading coordinator and the store do not hear each other."""
    if faults.store is None:
        return None
    leader = faults.leader()
    lasts_s = faults.rng.uniform(*CUT_S)
    pairs = [pair for server in faults.store.servers for pair in ((leader, server), (server, leader))]
    return Fault(
        kind, f"cut {leader} <-> the store for {lasts_s:.1f} s", lasts_s,
        lambda: faults.each_pair(faults.links.cut, pairs), lambda: faults.each_pair(faults.links.mend, pairs),
        stops_decisions=len(faults.cluster.coordinators) == 1,
    )  # fmt: skip


def kill_store_member(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGKILL of one server of several, and a restart: the others answer."""
    store = faults.store
    if store is None or len(store.servers) == 1:
        return None
    server = faults.rng.choice(store.servers)
    return _store_away(faults, kind, (server,), store.kill, store.start, f"kill {server} of {store.kind}")


def freeze_store_member(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGSTOP of one server of several."""
    store = faults.store
    if store is None or len(store.servers) == 1:
        return None
    server = faults.rng.choice(store.servers)
    return _store_away(faults, kind, (server,), store.freeze, store.thaw, f"freeze {server} of {store.kind}")


def kill_store(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGKILL of most servers of the store, or of all: nothing can be decided meanwhile."""
    store = faults.store
    if store is None:
        return None
    servers = _most(faults, store.servers)
    text = f"kill {', '.join(servers)} of {store.kind}"
    return _store_away(faults, kind, servers, store.kill, store.start, text)


def freeze_store(faults: Faults, kind: str, _spared: frozenset[str]) -> Fault | None:
    """SIGSTOP of most servers of the store, or of all."""
    store = faults.store
    if store is None:
        return None
    servers = _most(faults, store.servers)
    text = f"freeze {', '.join(servers)} of {store.kind}"
    return _store_away(faults, kind, servers, store.freeze, store.thaw, text)


def _kill(faults: Faults, kind: str, names: list[str], what: str) -> Fault:
    cluster = faults.cluster
    down_s = faults.rng.uniform(*DOWN_S)

    def kill() -> None:
        for name in names:
            cluster.kill(name)

    def restart() -> None:
        for name in names:
            cluster.restart(name)

    whom = f"{what} ({', '.join(names)})"
    return Fault(
        kind, f"kill {whom}, restart after {down_s:.1f} s", down_s, kill, restart,
        stops_decisions=set(names) == set(cluster.coordinators),
    )  # fmt: skip


def _standbys(faults: Faults) -> list[str]:
    leader = faults.leader()
    return [name for name in faults.cluster.coordinators if name != leader]


def _most(faults: Faults, servers: tuple[str, ...]) -> tuple[str, ...]:
    """Return a majority of the servers, or all."""
    count = faults.rng.randint(len(servers) // 2 + 1, len(servers))
    return tuple(sorted(faults.rng.sample(servers, count)))


def _store_away(
    faults: Faults,
    kind: str,
    servers: tuple[str, ...],
    away: Callable[[str], None],
    back: Callable[[str], None],
    text: str,
) -> Fault:
    store = faults.store
    assert store is not None
    lasts_s = faults.rng.uniform(*STORE_AWAY_S)

    def inject() -> None:
        for server in servers:
            away(server)

    def heal() -> None:
        for server in servers:
            back(server)
        store.wait()

    most = len(servers) > len(store.servers) // 2
    return Fault(kind, f"{text} for {lasts_s:.1f} s", lasts_s, inject, heal, stops_decisions=most)
