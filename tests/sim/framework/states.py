"""Nodes and clients know each version of the cluster state as the store had it.

States and routes travel as differences. One that is applied to another state than its sender meant leads to a state
that never was. The digests of the code under test are not asked here.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockring.cluster_state import ClusterState, Replica
from lockring.ids import Version
from tests.sim.framework.world import Violation, World


class StatesTaken:
    """The property STATE. Each stored state is remembered, however often the store is wiped or set back."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stored: dict[Version, ClusterState] = {}

    def stored(self, state: ClusterState) -> None:
        """Note a state that was written."""
        self._stored[state.version] = state

    def by_node(self, name: str, state: ClusterState) -> None:
        """Check a state that a node goes by from now on."""
        self._world.stats["states_checked"] += 1
        stored = self._stored.get(state.version)
        if stored is None:
            raise Violation("STATE", f"{name} goes by version {state.version}, which was never stored")
        if stored != state:
            raise Violation("STATE", f"{name} goes by another version {state.version} than was stored")

    def by_client(
        self,
        name: str,
        version: Version,
        primaries: Iterable[Replica | None],
        addresses: Iterable[tuple[Replica, str]],
    ) -> None:
        """Check the routes that a client goes by from now on."""
        self._world.stats["routes_checked"] += 1
        stored = self._stored.get(version)
        if stored is None:
            raise Violation("STATE", f"{name} goes by routes of version {version}, which was never stored")
        lives = [slot.primary for slot in stored.slots]
        expected = [life if life is not None and stored.is_current(life) else None for life in lives]
        if list(primaries) != expected:
            raise Violation("STATE", f"{name} goes by other primaries than version {version} has")
        if set(addresses) != {(member.replica, member.address) for member in stored.members.values()}:
            raise Violation("STATE", f"{name} goes by other members than version {version} has")
