"""How often a node tells the coordinator that it is there."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from lockring.cluster_state import ClusterState, Replica
from lockring.core.effects import COORDINATOR, Close, Send
from lockring.core.node import NodeCore
from lockring.ids import ClientId, ClusterId, Incarnation, NodeId, Version
from lockring.protocol import PROTOCOL, ClientHello, GetState, Heartbeat, HeartbeatAck, StateReply, Welcome
from lockring.units import NS_PER_MS


@pytest.mark.parametrize(("lease_ms", "every_ms"), [(30_000, 1_000), (6_000, 1_000), (1_200, 200)])
def test_a_node_sends_heartbeats_often_enough_for_the_lease_of_its_cluster(
    lease_ms: int, every_ms: int
) -> None:
    core = NodeCore(Replica("n", 1), now_ns=0)
    core.adopt(ClusterState(cluster="c", version=1, coordinator_lease_ms=lease_ms), now_ns=0)
    core.connected(COORDINATOR, now_ns=0)
    sent_ms = []
    for now_ms in range(0, 5_000, 10):
        core.on_timer(now_ns=now_ms * NS_PER_MS)
        effects = core.take_effects(now_ns=now_ms * NS_PER_MS)
        if any(isinstance(each, Send) and isinstance(each.message, Heartbeat) for each in effects):
            sent_ms.append(now_ms)
    gaps_ms = {later - earlier for earlier, later in itertools.pairwise(sent_ms)}
    assert gaps_ms
    assert max(gaps_ms) <= every_ms + 10


@pytest.mark.parametrize(
    ("names_several", "store_is_shared", "hangs_up"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_a_node_hangs_up_on_a_silent_coordinator_if_another_one_may_lead(
    names_several: bool, store_is_shared: bool, hangs_up: bool
) -> None:
    core = NodeCore(Replica("n", 1), now_ns=0)
    core.adopt(ClusterState(cluster="c", version=1), now_ns=0)
    welcome = Welcome(PROTOCOL, ClusterId("c"), "coordinator", NodeId("n"), Incarnation(1), Version(1))
    welcome = msgspec.structs.replace(welcome, has_others=store_is_shared)
    core.greet_coordinator(welcome, address="h:1", has_others=names_several)
    core.connected(COORDINATOR, now_ns=0)
    closed = False
    for now_ms in range(0, 10_000, 100):
        core.on_timer(now_ns=now_ms * NS_PER_MS)
        effects = core.take_effects(now_ns=now_ms * NS_PER_MS)
        closed = closed or any(isinstance(each, Close) and each.to == COORDINATOR for each in effects)
    assert closed == hangs_up


def test_a_node_says_for_how_long_it_has_heard_nothing_new() -> None:
    core = NodeCore(Replica("n", 1), now_ns=0)
    core.adopt(ClusterState(cluster="c", version=1), now_ns=0)
    core.connected(COORDINATOR, now_ns=0)
    core.on_timer(now_ns=NS_PER_MS)
    heartbeat = next(
        each.message
        for each in core.take_effects(now_ns=NS_PER_MS)
        if isinstance(each, Send) and isinstance(each.message, Heartbeat)
    )
    core.receive(COORDINATOR, HeartbeatAck(heartbeat.sequence, Version(1)), now_ns=9 * NS_PER_MS)
    core.disconnected(COORDINATOR, now_ns=10 * NS_PER_MS)
    core.connected(7, now_ns=7_000 * NS_PER_MS)
    core.receive(7, ClientHello(PROTOCOL, ClusterId("c"), ClientId("k"), 1), now_ns=7_000 * NS_PER_MS)
    core.receive(7, GetState(1), now_ns=7_001 * NS_PER_MS)
    effects = core.take_effects(now_ns=7_001 * NS_PER_MS)
    (reply,) = (
        each.message for each in effects if isinstance(each, Send) and isinstance(each.message, StateReply)
    )
    assert reply.age_ms == 7_001, "the heartbeat was sent at 0"
