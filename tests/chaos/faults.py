"""The faults of a cluster while clients work: drawn from a seed, one at a time, each followed by its healing.

The kinds come in rounds: each round has all of them once, in an order of its own, so that a long run has had each
about as often.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

from lockring.server.local.children import child_environment
from lockring.testing import COORDINATOR, LocalCluster
from lockring.testing.process import TestedProcess
from tests.chaos.links import Links

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
        kind: as in `KINDS`.
        text: what is done to whom, for people.
        lasts_s: how long after `inject` to call `heal`.
        inject: does it; does not wait.
        heal: undoes it; may wait for what it began.
        nodes: the nodes that it stops, moves or cuts off, with which a second fault has nothing to do.
        client: the client process that is itself stopped or cut off, "" if none is.
        waits: whether `heal` waits for what it began: all other faults must be undone before.
    """

    kind: str
    text: str
    lasts_s: float
    inject: Callable[[], None]
    heal: Callable[[], None]
    nodes: frozenset[str] = frozenset()
    client: str = ""
    waits: bool = False


class Faults:
    """Draws faults that fit the cluster as it is. Every choice follows from the random numbers.

    Args:
        cluster: to be harmed.
        links: between its processes.
        clients: client processes by name, without the prober.
        rng: all choices come from it.
        ttl_s: lease of the clients' grants.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        links: Links,
        clients: dict[str, TestedProcess],
        rng: random.Random,
        ttl_s: float,
    ) -> None:
        self._cluster = cluster
        self._links = links
        self._clients = clients
        self._rng = rng
        self._ttl_s = ttl_s
        self.left: set[str] = set()
        """Nodes that have left for good."""

    def draw(self, kind: str, *, spared: frozenset[str] = frozenset()) -> Fault | None:
        """A fault of a kind, None if the cluster has no place for it now.

        Args:
            kind: of `KINDS`.
            spared: nodes that it must leave alone.
        """
        return KINDS[kind](self, kind, spared)

    # ----------------------------------------------------------------------- processes

    def kill_node(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGKILL, and a restart."""
        node, cluster = self._node(spared), self._cluster
        down_s = self._rng.uniform(*DOWN_S)
        return Fault(
            kind, f"kill {node}, restart it after {down_s:.1f} s", down_s,
            lambda: cluster.kill(node), lambda: cluster.restart(node), frozenset({node}),
        )  # fmt: skip

    def kill_coordinator(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGKILL, and a restart on its data."""
        cluster = self._cluster
        down_s = self._rng.uniform(*DOWN_S)
        return Fault(
            kind, f"kill the coordinator, restart it after {down_s:.1f} s", down_s,
            lambda: cluster.kill(COORDINATOR), lambda: cluster.restart(COORDINATOR),
        )  # fmt: skip

    def freeze_node_shortly(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGSTOP for less than a lease."""
        return self._freeze(kind, self._node(spared), FREEZE_SHORT_S)

    def freeze_node_long(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGSTOP for longer than leases: it is replaced, and must find that out when it wakes."""
        return self._freeze(kind, self._node(spared), FREEZE_NODE_LONG_S)

    def freeze_coordinator(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGSTOP."""
        return self._freeze(kind, COORDINATOR, (0.5, 10.0))

    def freeze_client_shortly(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGSTOP for so short that it must not lose anything."""
        return self._freeze_client(kind, FREEZE_CLIENT_SHORT_S)

    def freeze_client_long(self, kind: str, _spared: frozenset[str]) -> Fault:
        """SIGSTOP for longer than its leases: others get its locks, and what it still writes must be refused."""
        return self._freeze_client(kind, (self._ttl_s + 0.5, self._ttl_s + 4.0))

    # ----------------------------------------------------------------------- links

    def cut_nodes(self, kind: str, spared: frozenset[str]) -> Fault:
        """Two nodes do not hear each other."""
        return self._cut(kind, *self._pair(spared), CUT_S, both=True)

    def cut_nodes_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """One node does not hear another one."""
        return self._cut(kind, *self._pair(spared), CUT_S, both=False)

    def cut_coordinator(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node and the coordinator do not hear each other."""
        return self._cut(kind, self._node(spared), COORDINATOR, CUT_S, both=True)

    def cut_coordinator_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node does not hear the coordinator, or the other way round."""
        ends = [self._node(spared), COORDINATOR]
        self._rng.shuffle(ends)
        return self._cut(kind, ends[0], ends[1], CUT_S, both=False)

    def cut_client(self, kind: str, spared: frozenset[str]) -> Fault:
        """A client and a node do not hear each other."""
        client = self._client()
        cut = self._cut(kind, client, self._node(spared), CUT_CLIENT_S, both=True)
        return cut._replace(client=client)

    def cut_client_one_way(self, kind: str, spared: frozenset[str]) -> Fault:
        """A client does not hear a node, or the other way round."""
        client = self._client()
        ends = [client, self._node(spared)]
        self._rng.shuffle(ends)
        return self._cut(kind, ends[0], ends[1], CUT_CLIENT_S, both=False)._replace(client=client)

    def forget_client(self, kind: str, spared: frozenset[str]) -> Fault | None:
        """A device between a client and a node forgets their connections, in one direction or both: they look open."""
        if not self._links.forgets:
            return None
        client, node = self._client(), self._node(spared)
        pairs = self._rng.choice(([(client, node)], [(node, client)], [(client, node), (node, client)]))
        arrow = "<->" if len(pairs) == 2 else "->"
        return Fault(
            kind, f"forget the connections {pairs[0][0]} {arrow} {pairs[0][1]}", 0.0,
            lambda: self._each(self._links.forget, pairs), lambda: None, client=client,
        )  # fmt: skip

    def isolate_node(self, kind: str, spared: frozenset[str]) -> Fault:
        """A node that hears no process and is heard by none."""
        node = self._node(spared)
        lasts_s = self._rng.uniform(*CUT_S)
        return Fault(
            kind,
            f"cut {node} off from everybody for {lasts_s:.1f} s",
            lasts_s,
            lambda: self._links.isolate(node),
            lambda: self._links.rejoin(node),
            frozenset({node}),
        )

    # ----------------------------------------------------------------------- planned

    def join(self, kind: str, _spared: frozenset[str]) -> Fault | None:
        """A new node."""
        if len(self._running()) >= NODES_MAX:
            return None
        weight = self._rng.choice((1, 1, 2))
        return Fault(
            kind, f"a new node of weight {weight}", 0.0,
            lambda: self._add(weight), lambda: None,
        )  # fmt: skip

    def leave(self, kind: str, spared: frozenset[str]) -> Fault | None:
        """A node that is ended in order, for good."""
        if len(self._running()) <= NODES_MIN:
            return None
        node = self._node(spared)

        def go() -> None:
            self.left.add(node)
            self._cluster.terminate(node)

        return Fault(
            kind, f"terminate {node} for good", 0.0,
            go, lambda: self._wait_for_exit(node), frozenset({node}), waits=True,
        )  # fmt: skip

    def restart_gently(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGTERM: the node drains and ends; then it comes back."""
        node = self._node(spared)
        return self._comeback(kind, f"terminate {node} and start it again", node, None)

    def reweigh(self, kind: str, spared: frozenset[str]) -> Fault:
        """SIGTERM, and a start with another weight."""
        node, weight = self._node(spared), self._rng.randint(1, 3)
        return self._comeback(kind, f"start {node} again with weight {weight}", node, weight)

    def drain(self, kind: str, spared: frozenset[str]) -> Fault:
        """`lockring drain`, then a restart."""
        node = self._node(spared)

        def come_back() -> None:
            self._command("drain", node, "--wait", "--timeout", f"{EXIT_S_MAX:g}")
            self._cluster.terminate(node)
            self._wait_for_exit(node)
            self._cluster.restart(node)

        return Fault(
            kind, f"`lockring drain {node}`, then start it again", 0.0,
            lambda: self._command("drain", node), come_back, frozenset({node}), waits=True,
        )  # fmt: skip

    # ----------------------------------------------------------------------- inner

    def _comeback(self, kind: str, text: str, node: str, weight: int | None) -> Fault:
        def come_back() -> None:
            self._wait_for_exit(node)
            self._cluster.restart(node, weight=weight)

        return Fault(
            kind, text, 0.0,
            lambda: self._cluster.terminate(node), come_back, frozenset({node}), waits=True,
        )  # fmt: skip

    def _add(self, weight: int) -> None:
        self._cluster.add_node(weight=weight)

    def _wait_for_exit(self, node: str) -> None:
        code = self._cluster.wait_for_exit(node, timeout_s=EXIT_S_MAX)
        if code:
            raise FaultFailed(f"{node} was told to end and exited with {code}")

    def _command(self, *words: str) -> None:
        servers = self._cluster.address_of(COORDINATOR)
        done = subprocess.run(
            [sys.executable, "-m", "lockring", *words, "--server", servers],
            capture_output=True, text=True, check=False, timeout=EXIT_S_MAX + 30, env=child_environment(),
        )  # fmt: skip
        if done.returncode:
            raise FaultFailed(f"`lockring {' '.join(words)}` exited with {done.returncode}: {done.stderr}")

    def _freeze(self, kind: str, name: str, bounds_s: tuple[float, float]) -> Fault:
        lasts_s = self._rng.uniform(*bounds_s)
        nodes = frozenset() if name == COORDINATOR else frozenset({name})
        return Fault(
            kind, f"freeze {name} for {lasts_s:.1f} s", lasts_s,
            lambda: self._cluster.freeze(name), lambda: self._cluster.thaw(name), nodes,
        )  # fmt: skip

    def _freeze_client(self, kind: str, bounds_s: tuple[float, float]) -> Fault:
        client = self._client()
        process = self._clients[client]
        lasts_s = self._rng.uniform(*bounds_s)
        return Fault(
            kind, f"freeze the client {client} for {lasts_s:.1f} s", lasts_s,
            process.freeze, process.thaw, client=client,
        )  # fmt: skip

    def _cut(
        self, kind: str, source: str, target: str, bounds_s: tuple[float, float], *, both: bool
    ) -> Fault:
        lasts_s = self._rng.uniform(*bounds_s)
        pairs = [(source, target), (target, source)] if both else [(source, target)]
        arrow = "<->" if both else "->"
        nodes = frozenset({source, target}) & frozenset(self._cluster.nodes)
        return Fault(
            kind, f"cut {source} {arrow} {target} for {lasts_s:.1f} s", lasts_s,
            lambda: self._each(self._links.cut, pairs), lambda: self._each(self._links.mend, pairs), nodes,
        )  # fmt: skip

    def _each(self, do: Callable[[str, str], None], pairs: list[tuple[str, str]]) -> None:
        for pair in pairs:
            do(*pair)

    def _running(self) -> list[str]:
        return [name for name in self._cluster.nodes if self._cluster.is_running(name)]

    def _node(self, spared: frozenset[str]) -> str:
        return self._rng.choice([name for name in self._running() if name not in spared])

    def _pair(self, spared: frozenset[str]) -> tuple[str, str]:
        first = self._node(spared)
        return first, self._node(spared | {first})

    def _client(self) -> str:
        return self._rng.choice(list(self._clients))


KINDS: Final[dict[str, Callable[[Faults, str, frozenset[str]], Fault | None]]] = {
    "kill a node": Faults.kill_node,
    "kill the coordinator": Faults.kill_coordinator,
    "freeze a node shortly": Faults.freeze_node_shortly,
    "freeze a node": Faults.freeze_node_long,
    "freeze the coordinator": Faults.freeze_coordinator,
    "freeze a client shortly": Faults.freeze_client_shortly,
    "freeze a client": Faults.freeze_client_long,
    "cut node - node": Faults.cut_nodes,
    "cut node -> node": Faults.cut_nodes_one_way,
    "cut node - coordinator": Faults.cut_coordinator,
    "cut node -> coordinator": Faults.cut_coordinator_one_way,
    "cut client - node": Faults.cut_client,
    "cut client -> node": Faults.cut_client_one_way,
    "forget client - node": Faults.forget_client,
    "isolate a node": Faults.isolate_node,
    "join": Faults.join,
    "leave": Faults.leave,
    "terminate and restart": Faults.restart_gently,
    "another weight": Faults.reweigh,
    "drain and restart": Faults.drain,
}
"""Every kind of fault, by the name that a report has for it."""

PLANNED: Final = frozenset({"join", "leave", "terminate and restart", "another weight", "drain and restart"})
"""Kinds that move slots while both sides are well."""

SECOND: Final = (
    "join",
    "terminate and restart",
    "freeze a client shortly",
    "cut client -> node",
    "cut node -> node",
)
"""Faults that may come on top of another one: nothing of it ends or silences a second holder of the same data."""
