"""The faults of nodes, clients and links while clients work: drawn from a seed, each followed by its healing.

Those of coordinators, of their store and of journals are in modules of their own; `kinds.py` has the list of all.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from lockring.exits import NOT_DRAINED
from lockring.server.local.children import child_environment
from lockring.testing import LocalCluster
from lockring.testing.process import TestedProcess
from tests.chaos.links import Links
from tests.chaos.store import SharedStore

NODES_MIN: Final = 4
NODES_MAX: Final = 6
EXIT_S_MAX: Final = 90.0
"""Bound for a node to drain and end, on a slow machine."""

FREEZE_SHORT_S: Final = (0.3, 1.5)
"""Shorter than the backup lease: others may wait, no copy replaces another."""

FREEZE_NODE_LONG_S: Final = (3.0, 10.0)
FREEZE_CLIENT_SHORT_S: Final = (0.3, 3.0)
"""Less than a third of a client's TTL: it must not lose anything."""

CUT_CLIENT_S: Final = (1.0, 4.0)
"""A client renews a third into its lease and dials again after two seconds: after this cut it must still hold
everything."""

CUT_S: Final = (1.0, 10.0)
DOWN_S: Final = (0.0, 8.0)


class FaultFailed(RuntimeError):
    """A fault or its healing that did not work: a finding, since all of it is supported."""


class Fault(NamedTuple):
    """One fault, ready to be done.

    Attributes:
        kind: as in `kinds.KINDS`.
        text: what is done to whom, for people.
        lasts_s: how long after `inject` to call `heal`.
        inject: does it; does not wait.
        heal: undoes it; may wait for what it began.
        nodes: the nodes that it stops, moves or cuts off, with which a second fault has nothing to do.
        clients: the client processes that are stopped, or cut off from every node, until it is healed.
        waits: whether `heal` waits for what it began: all other faults must be undone before.
        is_alone: whether no second fault may come on top.
        stops_decisions: whether nothing can be decided while it lasts. A node that has to end meanwhile may stay
            with all that it has, and say so.
    """

    kind: str
    text: str
    lasts_s: float
    inject: Callable[[], None]
    heal: Callable[[], None]
    nodes: frozenset[str] = frozenset()
    clients: frozenset[str] = frozenset()
    waits: bool = False
    is_alone: bool = False
    stops_decisions: bool = False


def was_without_decisions(log: str) -> bool:
    """Return whether a node that had to end has kept what it has, since nothing was decided meanwhile."""
    _, was_told, end = log.rpartition("draining: ")
    return bool(was_told) and "stopping without a move, since the coordinator has been away" in end


class Faults:
    """Draws faults that fit the cluster as it is. Every choice follows from the random numbers.

    Args:
        cluster: to be harmed.
        links: between its processes.
        clients: client processes by name, without the prober.
        everyone: the names of all client processes, with the prober.
        rng: all choices come from it.
        ttl_s: lease of the clients' grants.
        store: the store that the coordinators share, None if the only coordinator has a directory.

    Attributes:
        left: nodes that have left for good.
        nothing_is_decided: whether a fault under way stops all decisions.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        links: Links,
        clients: dict[str, TestedProcess],
        rng: random.Random,
        *,
        everyone: frozenset[str],
        ttl_s: float,
        store: SharedStore | None = None,
    ) -> None:
        self.cluster = cluster
        self.links = links
        self.clients = clients
        self.rng = rng
        self.everyone = everyone
        self.store = store
        self.left: set[str] = set()
        self.nothing_is_decided = False
        self._ttl_s = ttl_s

    # ----------------------------------------------------------------------- processes

    def kill_node(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGKILL, and a restart."""
        node, cluster = self.node(spared), self.cluster
        down_s = self.rng.uniform(*DOWN_S)
        return Fault(
            kind, f"kill {node}, restart it after {down_s:.1f} s", down_s,
            lambda: cluster.kill(node), lambda: cluster.restart(node), frozenset({node}),
        )  # fmt: skip

    def freeze_node_shortly(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGSTOP for less than a lease."""
        return self.freeze(kind, self.node(spared), FREEZE_SHORT_S)

    def freeze_node_long(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGSTOP for longer than leases: it is replaced, and must find that out when it wakes."""
        return self.freeze(kind, self.node(spared), FREEZE_NODE_LONG_S)

    def freeze_client_shortly(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGSTOP for so short that it must not lose anything."""
        return self._freeze_client(kind, FREEZE_CLIENT_SHORT_S)

    def freeze_client_long(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGSTOP for longer than its leases: others get its locks, and what it still writes must be refused."""
        return self._freeze_client(kind, (self._ttl_s + 0.5, self._ttl_s + 4.0))

    # ----------------------------------------------------------------------- links

    def cut_nodes(self, kind: str, spared: frozenset[str]) -> Fault:
        """Two nodes do not hear each other."""
        return self.cut(kind, *self._pair(spared), CUT_S, both=True)

    def cut_nodes_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """One node does not hear another one."""
        return self.cut(kind, *self._pair(spared), CUT_S, both=False)

    def cut_coordinator(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node and the leading coordinator do not hear each other."""
        return self.cut(kind, self.node(spared), self.leader(), CUT_S, both=True)

    def cut_coordinator_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node does not hear the leading coordinator, or the other way round."""
        ends = [self.node(spared), self.leader()]
        self.rng.shuffle(ends)
        return self.cut(kind, ends[0], ends[1], CUT_S, both=False)

    def cut_client(self, kind: str, spared: frozenset[str]) -> Fault:
        """A client and a node do not hear each other."""
        client = self._client()
        cut = self.cut(kind, client, self.node(spared), CUT_CLIENT_S, both=True)
        return cut._replace(clients=frozenset({client}))

    def cut_client_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """A client does not hear a node, or the other way round."""
        client = self._client()
        ends = [client, self.node(spared)]
        self.rng.shuffle(ends)
        return self.cut(kind, ends[0], ends[1], CUT_CLIENT_S, both=False)._replace(
            clients=frozenset({client})
        )

    def forget_client(self, kind: str, spared: frozenset[str]) -> Fault | None:
        """A device between a client and a node forgets their connections, in one direction or both: they look open."""
        if not self.links.forgets:
            return None
        client, node = self._client(), self.node(spared)
        pairs = self.rng.choice(([(client, node)], [(node, client)], [(client, node), (node, client)]))
        arrow = "<->" if len(pairs) == 2 else "->"
        return Fault(
            kind, f"forget the connections {pairs[0][0]} {arrow} {pairs[0][1]}", 0.0,
            lambda: self.each_pair(self.links.forget, pairs), lambda: None, clients=frozenset({client}),
        )  # fmt: skip

    def isolate_node(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node that hears no process and is heard by none."""
        node = self.node(spared)
        lasts_s = self.rng.uniform(*CUT_S)
        return Fault(
            kind,
            f"cut {node} off from everybody for {lasts_s:.1f} s",
            lasts_s,
            lambda: self.links.isolate(node),
            lambda: self.links.rejoin(node),
            frozenset({node}),
        )

    # ----------------------------------------------------------------------- planned

    def join(self, kind: str, _spared: frozenset[str]) -> Fault | None:
        """A new node."""
        if len(self.running()) >= NODES_MAX:
            return None
        weight = self.rng.choice((1, 1, 2))
        return Fault(
            kind, f"a new node of weight {weight}", 0.0,
            lambda: self._add(weight), lambda: None,
        )  # fmt: skip

    def leave(self, kind: str, spared: frozenset[str]) -> Fault | None:
        """A node that is ended in order, for good."""
        if len(self.running()) <= NODES_MIN:
            return None
        node = self.node(spared)

        def go() -> None:
            self.left.add(node)
            self.cluster.terminate(node)

        return Fault(
            kind, f"terminate {node} for good", 0.0,
            go, lambda: self._wait_for_exit(node), frozenset({node}), waits=True,
        )  # fmt: skip

    def restart_gently(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGTERM: the node drains and ends; then it comes back."""
        node = self.node(spared)
        return self._comeback(kind, f"terminate {node} and start it again", node, None)

    def reweigh(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGTERM, and a start with another weight."""
        node, weight = self.node(spared), self.rng.randint(1, 3)
        return self._comeback(kind, f"start {node} again with weight {weight}", node, weight)

    def drain(self, kind: str, spared: frozenset[str]) -> Fault:
        """`lockring drain`, then a restart."""
        node = self.node(spared)

        def come_back() -> None:
            self._command("drain", node, "--wait", "--timeout", f"{EXIT_S_MAX:g}")
            self.cluster.terminate(node)
            self._wait_for_exit(node)
            self.cluster.restart(node)

        return Fault(
            kind, f"`lockring drain {node}`, then start it again", 0.0,
            lambda: self._command("drain", node), come_back, frozenset({node}), waits=True,
        )  # fmt: skip

    # ----------------------------------------------------------------------- inner

    def _comeback(self, kind: str, text: str, node: str, weight: int | None) -> Fault:
        def come_back() -> None:
            self._wait_for_exit(node)
            self.cluster.restart(node, weight=weight)

        return Fault(
            kind, text, 0.0,
            lambda: self.cluster.terminate(node), come_back, frozenset({node}), waits=True,
        )  # fmt: skip

    def _add(self, weight: int) -> None:
        self.cluster.add_node(weight=weight)

    def _wait_for_exit(self, node: str) -> None:
        code = self.cluster.wait_for_exit(node, timeout_s=EXIT_S_MAX)
        may_stay = self.nothing_is_decided and was_without_decisions(self.cluster.log_of(node))
        if code and not (code == NOT_DRAINED and may_stay):
            raise FaultFailed(f"{node} was told to end and exited with {code}")

    def _command(self, *words: str) -> None:
        servers = ",".join(self.cluster.address_of(name) for name in self.cluster.coordinators)
        done = subprocess.run(
            [sys.executable, "-m", "lockring", *words, "--server", servers],
            capture_output=True, text=True, check=False, timeout=EXIT_S_MAX + 30, env=child_environment(),
        )  # fmt: skip
        if done.returncode:
            raise FaultFailed(f"`lockring {' '.join(words)}` exited with {done.returncode}: {done.stderr}")

    def freeze(self, kind: str, name: str, bounds_s: tuple[float, float]) -> Fault:
        """SIGSTOP of a node or a coordinator, for a time within the bounds."""
        lasts_s = self.rng.uniform(*bounds_s)
        nodes = frozenset({name}) & frozenset(self.cluster.nodes)
        return Fault(
            kind, f"freeze {name} for {lasts_s:.1f} s", lasts_s,
            lambda: self.cluster.freeze(name), lambda: self.cluster.thaw(name), nodes,
            stops_decisions=self.cluster.coordinators == [name],
        )  # fmt: skip

    def _freeze_client(self, kind: str, bounds_s: tuple[float, float]) -> Fault:
        client = self._client()
        process = self.clients[client]
        lasts_s = self.rng.uniform(*bounds_s)
        return Fault(
            kind, f"freeze the client {client} for {lasts_s:.1f} s", lasts_s,
            process.freeze, process.thaw, clients=frozenset({client}),
        )  # fmt: skip

    def cut(self, kind: str, source: str, target: str, bounds_s: tuple[float, float], *, both: bool) -> Fault:
        """A cut of one link, in one direction or both."""
        lasts_s = self.rng.uniform(*bounds_s)
        pairs = [(source, target), (target, source)] if both else [(source, target)]
        arrow = "<->" if both else "->"
        nodes = frozenset({source, target}) & frozenset(self.cluster.nodes)
        return Fault(
            kind, f"cut {source} {arrow} {target} for {lasts_s:.1f} s", lasts_s,
            lambda: self.each_pair(self.links.cut, pairs), lambda: self.each_pair(self.links.mend, pairs), nodes,
        )  # fmt: skip

    def each_pair(self, do: Callable[[str, str], None], pairs: list[tuple[str, str]]) -> None:
        """Cut or mend several links."""
        for pair in pairs:
            do(*pair)

    def running(self) -> list[str]:
        """The nodes that run."""
        return [name for name in self.cluster.nodes if self.cluster.is_running(name)]

    def leader(self) -> str:
        """The coordinator that leads."""
        return self.cluster.leader or self.cluster.coordinators[0]

    def node(self, spared: frozenset[str]) -> str:
        """A node that runs."""
        return self.rng.choice([name for name in self.running() if name not in spared])

    def _pair(self, spared: frozenset[str]) -> tuple[str, str]:
        first = self.node(spared)
        return first, self.node(spared | {first})

    def _client(self) -> str:
        return self.rng.choice(list(self.clients))
