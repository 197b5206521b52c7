"""Log lines about nodes that come and go: few for one trouble, and none that blames a node for the coordinator."""

from __future__ import annotations

import msgspec

from lockring.cluster_state import Replica
from lockring.core.coordinator.status import CoordinatorStatus, standby_status
from lockring.ids import NodeId
from lockring.server.presence import Presence
from lockring.units import NS_PER_S
from tests.unit.core.coordinator.world import World

N1 = Replica("N1", 7)
LEASE_S = 5
GONE = (NodeId("N1"),)


def presence() -> Presence:
    return Presence(look_ns=NS_PER_S, member_lease_ns=LEASE_S * NS_PER_S, now_ns=0)


def status(*, is_store_failing: bool = False) -> CoordinatorStatus:
    found = standby_status("", 1)
    return msgspec.structs.replace(found, absent=GONE, is_store_failing=is_store_failing)


def at(second: float) -> int:
    return int(second * NS_PER_S)


def test_a_node_that_comes_and_goes_again_and_again_is_logged_at_first_and_once_a_minute() -> None:
    nodes = presence()
    assert nodes.connected(N1, now_ns=0) == "node N1#7 is connected"
    lines: list[str] = []
    for second in range(20, 110, 3):
        lines.append(nodes.disconnected(N1, "it left", now_ns=at(second)))
        lines.append(nodes.connected(N1, now_ns=at(second + 0.1)))
    assert [each for each in lines if each] == [
        "node N1 is disconnected: it left",
        "node N1#7 is connected again (1 failure in 0 s)",
        "node N1 is disconnected: it left (21 failures in 60 s)",
    ]


def test_a_node_that_has_stayed_for_a_while_is_logged_as_before() -> None:
    nodes = presence()
    nodes.connected(N1, now_ns=0)
    for second in (20, 40):
        assert nodes.disconnected(N1, "it left", now_ns=at(second)) == "node N1 is disconnected: it left"
        assert nodes.connected(N1, now_ns=at(second + 2)) == "node N1#7 is connected again (1 failure in 2 s)"


def test_each_life_of_a_node_is_logged() -> None:
    nodes = presence()
    for life in range(1, 5):
        replica = Replica("N1", life)
        assert nodes.connected(replica, now_ns=0) == f"node N1#{life} is connected"
        if life % 2:
            assert nodes.disconnected(replica, "it left", now_ns=0) == "node N1 is disconnected: it left"


def test_the_late_end_of_a_former_lifes_connection_is_logged_and_begins_no_trouble_of_the_present_one() -> (
    None
):
    nodes = presence()
    nodes.connected(N1, now_ns=0)
    later = Replica("N1", 8)
    nodes.connected(later, now_ns=1)
    assert nodes.disconnected(N1, "closed", now_ns=2) == "node N1 is disconnected: closed"
    assert nodes.connected(later, now_ns=3) == ""


def test_members_that_are_gone_are_reported_at_once_while_the_coordinator_is_well() -> None:
    nodes = presence()
    for second in range(1, 10):
        assert nodes.absent(status(), now_ns=at(second)) == GONE


def test_no_member_is_called_gone_while_the_store_fails_and_for_a_member_lease_after_that() -> None:
    nodes = presence()
    for second in range(1, 30):
        assert nodes.absent(status(is_store_failing=True), now_ns=at(second)) == ()
    for second in range(30, 29 + LEASE_S):
        assert nodes.absent(status(), now_ns=at(second)) == ()
    assert nodes.absent(status(), now_ns=at(29 + LEASE_S)) == GONE


def test_no_member_is_called_gone_by_a_coordinator_that_has_just_stood_still() -> None:
    nodes = presence()
    assert nodes.absent(status(), now_ns=at(1)) == GONE
    assert nodes.absent(status(), now_ns=at(41)) == ()
    for second in range(42, 41 + LEASE_S):
        assert nodes.absent(status(), now_ns=at(second)) == ()
    assert nodes.absent(status(), now_ns=at(41 + LEASE_S)) == GONE


def test_a_failing_store_is_part_of_the_status() -> None:
    world = World()
    world.cluster("a", "b")
    assert not world.core.status(now_ns=world.now_ns).is_store_failing
    world.fails_reads = True
    world.run(3)
    assert world.core.status(now_ns=world.now_ns).is_store_failing
    world.fails_reads = False
    world.run(3)
    assert not world.core.status(now_ns=world.now_ns).is_store_failing
