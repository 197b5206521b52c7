"""Rules about cluster states that travel as differences."""

from __future__ import annotations

from lockring.core import state_differences
from lockring.core.coordinator.state_broadcast import StateBroadcast
from lockring.ids import Version
from lockring.protocol import StateDifference
from tests.sim.rules.switches import Change, drill, pair
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


def _send_newest_step_alone(cluster: Scenario) -> None:
    """Let the coordinator believe that each node that joins has the version before the newest."""
    core = cluster.coordinator.deciding
    assert core is not None
    broadcast: StateBroadcast = core._broadcast
    history = broadcast._history

    def differences_since(version: Version) -> list[StateDifference]:
        return list(history._differences)[-1:] if version < history.state.version else []

    history.differences_since = differences_since  # type: ignore[method-assign]
