"""Rules about cluster states and routes that travel as differences."""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.cluster_state import ClusterState, Replica
from lockring.core import state_differences
from lockring.core.client import routes
from lockring.core.client.routes import RouteTable
from lockring.core.coordinator.state_broadcast import StateBroadcast
from lockring.core.node.copies import Copies
from lockring.core.node.peer_link import PeerLink
from lockring.core.node.replicator import Replicator
from lockring.core.state_differences import difference_of
from lockring.core.state_history import StateHistory
from lockring.ids import SequenceNumber, Version
from lockring.protocol import RoutesDifference, StateDifference
from tests.sim.rules.switches import Change, drill, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


def _on_any_version() -> list[Change]:
    return [(state_differences, "_check_base", lambda before, message: None)]


def _wherever_it_leads() -> list[Change]:
    return [(state_differences, "_check_digest", lambda after, content, message: None)]


@pair(_on_any_version, _wherever_it_leads)
def difference_on_another_version() -> None:
    """A node applies a difference to whatever version of the state it has.

    Each of two rules keeps it from that: the version from which the difference leads, and the digest of the state to
    which it leads.
    """


@drill
def drill_difference_on_another_version() -> None:
    """A primary was cut off for long, and a coordinator that errs sends it the newest step alone when it is back."""
    cluster = Scenario(nodes=3, clients=2)
    simulation, former = cluster.simulation, cluster.primary()
    lonely, other = simulation.clients
    cluster.hold(lonely, cluster.name)
    for process in (*simulation.coordinators, *simulation.nodes):
        if process is not former:
            cluster.cut(former, process, 9)
            cluster.cut(lonely, process, 60)
    cluster.wait(lambda: cluster.primary() is not former, 8)
    _send_newest_step_alone(cluster)
    cluster.run(16)
    cluster.hold(other, cluster.name)
    lonely.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(20)


def _history(cluster: Scenario) -> StateHistory:
    """The states that the coordinator sends, and the steps between them."""
    core = cluster.coordinator.deciding
    assert core is not None
    broadcast: StateBroadcast = core._broadcast
    return broadcast._history


def _send_newest_step_alone(cluster: Scenario) -> None:
    """Let the coordinator believe that each node that joins has the version before the newest."""
    history = _history(cluster)

    def differences_since(version: Version) -> list[StateDifference]:
        return list(history._differences)[-1:] if version < history.state.version else []

    history.differences_since = differences_since  # type: ignore[method-assign]


@mutant
def difference_digest_ignored() -> list[Change]:
    """A node takes a difference without a look at the digest of the state to which it leads."""
    return _wherever_it_leads()


@drill
def drill_difference_digest_ignored() -> None:
    """A coordinator that errs sends steps in which each slot is given what is its neighbour's."""
    cluster = Scenario(nodes=3, clients=2)
    _send_what_is_the_neighbour_s(cluster)
    cluster.crash(cluster.primary())
    cluster.quiet()
    cluster.hold(cluster.simulation.clients[0], cluster.name)


def _send_what_is_the_neighbour_s(cluster: Scenario) -> None:
    """Let the steps that the coordinator makes lead to slots in another order, under the digest of the right state."""
    history = _history(cluster)
    advance_to = history.advance_to

    def changed(state: ClusterState) -> None:
        wrong = msgspec.structs.replace(state, slots=(*state.slots[1:], state.slots[0]))
        step = difference_of(history.state, wrong, history.content()).message
        advance_to(state)
        history._differences[-1] = msgspec.structs.replace(history._differences[-1], change=step.change)

    history.advance_to = changed  # type: ignore[method-assign]


@mutant
def node_behind_is_left() -> list[Change]:
    """A coordinator sends nothing to a node that says that a step did not fit, or whose version stays old."""
    return [(StateBroadcast, "catch_up", lambda self, connection, heartbeat, *, now_ns: [])]


@drill
def drill_node_behind_is_left() -> None:
    """A backup is promoted, and the step that says so is wrong, or lost."""
    cluster = Scenario(nodes=3)
    cluster.simulation.weather.errs = 1.0
    backup = cluster.backup()
    cluster.crash(cluster.primary())
    cluster.wait(lambda: cluster.primary() is backup, 10)
    cluster.run(5)
    cluster.demand(cluster.serves(backup), "P7", "the promoted backup does not learn that it is the primary")


def _repeated_by_copies() -> list[Change]:
    """A copy passes a primary that is behind the same steps again, although they have not helped."""
    pass_state_on = Copies._pass_state_on

    def changed(self: Copies, primary: Replica, version: Version, now_ns: int) -> None:
        behind = self._behind.get(primary)
        if behind is not None:
            self._behind[primary] = behind._replace(was_told=False)
        pass_state_on(self, primary, version, now_ns)

    return [(Copies, "_pass_state_on", changed)]


def _taken_for_taken_by_primaries() -> list[Change]:
    """A primary takes steps that it has passed to a copy for taken, although the copy acknowledges without them."""
    pass_state = Replicator._pass_state

    def changed(self: Replicator, link: PeerLink, sequence: SequenceNumber, version: Version) -> None:
        link.state_sent = link.state_sent._replace(is_whole=True)
        pass_state(self, link, sequence, version)

    return [(Replicator, "_pass_state", changed)]


@pair(_repeated_by_copies, _taken_for_taken_by_primaries)
def peer_astray_is_left() -> None:
    """A node gives no peer all of the state for which the steps that it has passed to it did not fit.

    Copies and primaries do that each for themselves, and most pairs of nodes are both to each other.
    """


@drill
def drill_peer_astray_is_left() -> None:
    """A node becomes a copy while it is cut off from the coordinator, and each step that a peer sends it is wrong."""
    cluster = Scenario(nodes=3)
    _let_nodes_err(cluster)
    backup, third = cluster.backup(), cluster.third()
    cluster.cut(third, cluster.coordinator, 20)
    cluster.crash(backup)
    assert third.core is not None
    life = third.core.replica
    cluster.wait(lambda: cluster.slot().copy_of(life) is not None, 4)
    epoch = cluster.slot().epoch
    cluster.run(2)
    cluster.demand(third.core.state.version >= epoch, "P7", "the new copy does not learn that it is one")


def _let_nodes_err(cluster: Scenario) -> None:
    """Let each step that a node passes on to another be wrong."""
    for node in cluster.simulation.nodes:
        assert node.core is not None
        _damage_what_is_passed_on(node.core._context.history)


def _damage_what_is_passed_on(history: StateHistory) -> None:
    differences_since = history.differences_since

    def changed(version: Version) -> list[StateDifference] | None:
        steps = differences_since(version)
        return steps and [msgspec.structs.replace(each, digest=each.digest ^ 1) for each in steps]

    history.differences_since = changed  # type: ignore[method-assign]


def _on_any_routes() -> list[Change]:
    take = RouteTable.take

    def changed(self: RouteTable, difference: RoutesDifference, now_ns: int) -> bool:
        return take(self, msgspec.structs.replace(difference, base=self.version), now_ns)

    return [(RouteTable, "take", changed)]


class _Whichever(int):
    """A digest that equals all others."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _whatever_the_routes() -> list[Change]:
    return [(routes, "digest_of_routes", lambda version, coordinator, content: _Whichever())]


@pair(_on_any_routes, _whatever_the_routes)
def difference_on_other_routes() -> None:
    """A client applies a difference to whatever routes it has.

    Each of two rules keeps it from that: the version from which the difference leads, and the digest of its result.
    """


@drill
def drill_difference_on_other_routes() -> None:
    """Servers that err tell a client nothing of one change of the routes, and then of the next one."""
    cluster = Scenario(nodes=3, clients=2)
    client, crashed = cluster.simulation.clients[0], cluster.third()
    cluster.let_go(client, *cluster.hold(client, cluster.name))
    _tell_nothing(cluster, 3)
    cluster.crash(crashed)
    cluster.run(3)
    crashed.start()
    cluster.quiet()
    cluster.hold(cluster.simulation.clients[1], cluster.name)


def _tell_nothing(cluster: Scenario, seconds: float) -> None:
    """Let no server tell its clients of new routes for so long."""
    end = cluster.world.now + int(seconds * 10**9)
    core = cluster.coordinator.deciding
    assert core is not None
    clients: Any = core._answers.clients
    _hush(cluster, end, clients, "publish", [])
    for node in cluster.simulation.nodes:
        assert node.core is not None
        _hush(cluster, end, node.core.service, "send_routes", None)


def _hush(cluster: Scenario, end: int, owner: Any, method: str, nothing: Any) -> None:
    """Let a method do its work until then, but its effects be lost."""
    original = getattr(owner, method)

    def changed(*arguments: Any) -> Any:
        effects = original(*arguments) if cluster.world.now >= end or arguments else nothing
        return effects if cluster.world.now >= end else nothing

    setattr(owner, method, changed)
