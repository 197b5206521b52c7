"""200 held locks on three coordinators, while everything that they depend on dies, stands still and comes back.

One fault comes after the other, each with time to settle. No lock is lost, nothing is violated, tokens only grow, and
each time a leader decides within five seconds of the moment from which it can.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from lockring.errors import LockringError
from lockring.net.oneshot import ask_state, ask_status
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S
from tests.stores.load import Holder, Turns
from tests.stores.servers import PostgresServer
from tests.stores.servers_etcd import EtcdServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

LOCKS: Final = 200
SETTLED_S: Final = 60.0
DECIDES_S_MAX: Final = 5.0
FROZEN_S: Final = 40
AWAY_S: Final = 8
"""How long a store is away: the nodes' leases last for longer."""


class Drill:
    """A cluster under load, and the time that its coordinators need after each fault."""

    def __init__(self, cluster: LocalCluster, holder: Holder, turns: Turns) -> None:
        self.cluster = cluster
        self._holder = holder
        self._turns = turns
        self._reigns = self._reigns_now()
        self._before = cluster.state()
        self._began_s = 0.0
        self._waits_s: Mapping[int, float] = {}

    def begin(self) -> None:
        """Start the clock: from now on a coordinator can decide."""
        self._before = self.cluster.state()
        self._waits_s = self._waited_s()
        self._began_s = time.monotonic()

    def new_leader(self, fault: str) -> None:
        """Wait until a new leader has decided, and the nodes have its decision; then until all is calm."""
        decided_s = self._seconds_until(self._has_new_term, self.cluster.coordinators)
        heard_s = self._seconds_until(self._has_new_term, self.cluster.nodes)
        self._judge(fault, decided_s, f"a new leader has decided, and a node has it after {heard_s:.2f} s")

    def leases_again(self, fault: str) -> None:
        """Wait until a leader, be it the former one, gives leases again that had run down; then until all is calm.

        Call it when the store answers again.
        """
        answers_s = time.monotonic() - self._began_s
        leased_s = self._seconds_until(self._has_new_lease, self.cluster.nodes)
        is_new = self.cluster.state().term != self._before.term
        what = f"a node has a lease of {'a new' if is_new else 'the former'} leader"
        self._judge(
            fault, leased_s - answers_s, f"{what}, {leased_s:.2f} s after the store began to come back"
        )

    def _judge(self, fault: str, took_s: float, what: str) -> None:
        starved_s = sum(
            waited_s - self._waits_s.get(task, 0.0) for task, waited_s in self._waited_s().items()
        )
        print(f"{fault}: after {took_s:.2f} s {what} ({starved_s:.2f} s of waiting for a processor)")
        self.settle(fault)
        assert took_s <= DECIDES_S_MAX + starved_s, fault

    def settle(self, fault: str) -> None:
        """Wait until all is calm, and check the locks."""
        self.cluster.wait_until_stable(timeout_s=SETTLED_S)
        self.check(fault)

    def check(self, fault: str) -> None:
        """No lock is lost, nothing is violated, and no slot has moved."""
        self._holder.check(fault)
        self._turns.check(fault)
        assert self._reigns_now() == self._reigns, fault

    def _reigns_now(self) -> list[int]:
        return [slot.since for slot in self.cluster.state().slots]

    def _seconds_until(self, has_news: Callable[[str], bool], names: list[str]) -> float:
        """Return when one of these processes had news, since the begin."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            for name in names:
                with contextlib.suppress(LockringError):
                    if self.cluster.is_running(name) and has_news(self.cluster.address_of(name)):
                        return time.monotonic() - self._began_s
            assert time.monotonic() < end_s, f"no news\n{self.cluster.logs()}"
            time.sleep(0.01)

    def _has_new_term(self, address: str) -> bool:
        state = ask_state(address, timeout_s=0.5).state
        return state.version > self._before.version and state.term != self._before.term

    def _has_new_lease(self, address: str) -> bool:
        return ask_status(address, timeout_s=0.5).lease_left_ms > self._before.coordinator_lease_ms - 3_000

    def _waited_s(self) -> dict[int, float]:
        """Return how long each coordinator has waited for a processor: a busy machine is not their fault."""
        found: dict[int, float] = {}
        for name in self.cluster.coordinators:
            if self.cluster.is_running(name):
                pid = self.cluster.pid_of(name)
                with contextlib.suppress(OSError):
                    for task in Path(f"/proc/{pid}/task").iterdir():
                        found[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
        return found


@contextlib.contextmanager
def drill(url: str) -> Iterator[Drill]:
    with LocalCluster(nodes=3, coordinators=3, store=url, stabilization_s=0.3) as cluster:
        holder, turns = Holder(cluster.servers, LOCKS), Turns(cluster.servers, seed=1)
        with turns.running():
            found = Drill(cluster, holder, turns)
            found.check("nothing has happened yet")
            yield found
            holder.take_again()
        holder.client.close()
        print(f"{turns.visits} visits of contended locks, {turns.refusals} that did not get one")


def lose_coordinators(drill: Drill) -> None:
    """The leader is killed, stands still and goes on; then all coordinators are killed at once."""
    cluster = drill.cluster
    leader = cluster.leader
    drill.begin()
    cluster.kill(leader)
    drill.new_leader("SIGKILL of the leader")
    cluster.restart(leader)
    drill.settle("the former leader is back, and stands by")

    leader = cluster.leader
    drill.begin()
    cluster.freeze(leader)
    stopped_s = time.monotonic()
    drill.new_leader("SIGSTOP of the leader")
    time.sleep(max(0.0, stopped_s + FROZEN_S - time.monotonic()))
    drill.check(f"the former leader has stood still for {FROZEN_S} s")
    term = cluster.state().term
    cluster.thaw(leader)
    time.sleep(5)  # in which it could do harm
    drill.settle("SIGCONT of the former leader")
    assert cluster.state().term == term
    assert cluster.leader != leader

    drill.begin()
    for name in cluster.coordinators:
        cluster.kill(name)
    for name in cluster.coordinators:
        cluster.restart(name)
    drill.new_leader("SIGKILL and restart of all coordinators at once")


def test_nothing_is_lost_on_three_members_of_etcd(tmp_path: Path) -> None:
    store = EtcdServer(tmp_path / "etcd", 3)
    try:
        with drill(store.url()) as each:
            lose_coordinators(each)
            for member in store.members:
                store.kill(member)
                time.sleep(AWAY_S)
                each.settle(f"etcd's member {member} is away")
                store.start(member)
                store.wait()
                each.settle(f"etcd's member {member} is back")
            for lost in ((0, 1), tuple(store.members)):
                store.kill(*lost)
                time.sleep(AWAY_S)
                each.check(f"{len(lost)} of etcd's members are away")
                each.begin()
                for member in lost:
                    store.start(member)
                store.wait()
                each.leases_again(f"{len(lost)} of etcd's members are back")
    finally:
        store.kill()


def test_nothing_is_lost_on_postgresql() -> None:
    store = PostgresServer()
    try:
        with drill(store.url()) as each:
            lose_coordinators(each)
            for is_killed in (True, False):
                if is_killed:
                    store.kill()
                else:
                    store.freeze()
                time.sleep(AWAY_S)
                each.check("PostgreSQL is away")
                each.begin()
                if is_killed:
                    store.start()
                else:
                    store.thaw()
                each.leases_again("PostgreSQL is back")
    finally:
        store.remove()
