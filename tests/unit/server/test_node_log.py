"""The log of a node about its right to serve and its takeovers, with real cores and times that the test chooses."""

from __future__ import annotations

import pytest

from lockring.cluster_state import ClusterState, Replica, encode_state
from lockring.core.effects import COORDINATOR, Send
from lockring.core.node import NodeCore
from lockring.protocol import Heartbeat, HeartbeatAck, State
from lockring.server.node_log import NodeLog
from lockring.units import NS_PER_S

STATE = ClusterState(cluster="c", version=3)
LEASE_NS = STATE.coordinator_lease_ms * 1_000_000
OVER = "serving no more: the coordinator's lease of 30 s is over, and "
AGAIN = "serving again: the coordinator has given this node its lease"


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lockring.node")


def life(incarnation: int, now_ns: int) -> NodeCore:
    return NodeCore(Replica("N1", incarnation), now_ns=now_ns)


def give_lease(core: NodeCore, now_ns: int) -> None:
    """Let the coordinator welcome a life, or acknowledge the heartbeat that is due."""
    if core.away_since_ns is not None:
        core.connected(COORDINATOR, now_ns=now_ns)
        core.receive(COORDINATOR, State(encode_state(STATE)), now_ns=now_ns)
    else:
        core.on_timer(now_ns=now_ns)
    for effect in core.take_effects(now_ns=now_ns):
        if isinstance(effect, Send) and isinstance(effect.message, Heartbeat):
            answer = HeartbeatAck(effect.message.sequence, STATE.version)
            core.receive(COORDINATOR, answer, now_ns=now_ns)


def look(log: NodeLog, caplog: pytest.LogCaptureFixture, *times_ns: int) -> list[str]:
    """Let the log look at these times, and return the new lines."""
    caplog.clear()
    for now_ns in times_ns:
        log.look(now_ns)
    return caplog.messages[:]


def test_a_lease_that_ends_and_one_that_comes_back_are_logged_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = life(1, 0)
    log = NodeLog(core)
    assert look(log, caplog, 0) == [], "a node that has just started has lost nothing"
    give_lease(core, 0)
    assert look(log, caplog, 1, LEASE_NS - 1) == []
    assert look(log, caplog, LEASE_NS, LEASE_NS + 1) == [OVER + "it has not been renewed"]
    assert caplog.records[0].levelname == "ERROR"
    give_lease(core, LEASE_NS + 2)
    assert look(log, caplog, LEASE_NS + 3, LEASE_NS + 4) == [AGAIN]


def test_a_lost_lease_is_logged_with_how_long_the_coordinator_has_been_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = life(1, 0)
    log = NodeLog(core)
    give_lease(core, 0)
    core.disconnected(COORDINATOR, now_ns=LEASE_NS - 7 * NS_PER_S)
    assert look(log, caplog, LEASE_NS) == [OVER + "the coordinator has been away for 7 s"]


def test_a_lease_that_comes_back_in_another_life_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    former, later = life(1, 0), life(2, LEASE_NS)
    log = NodeLog(former)
    give_lease(former, 0)
    assert look(log, caplog, LEASE_NS) == [OVER + "it has not been renewed"]
    log.begin_life(later)
    assert look(log, caplog, LEASE_NS + 1) == [], "this life has not had a lease, and the loss is known"
    give_lease(later, LEASE_NS + 2)
    assert look(log, caplog, LEASE_NS + 3) == [AGAIN]
    assert look(log, caplog, 2 * LEASE_NS + 3) == [OVER + "it has not been renewed"]


def test_a_life_that_follows_one_with_a_lease_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    former, later = life(1, 0), life(2, 1)
    log = NodeLog(former)
    give_lease(former, 0)
    assert look(log, caplog, 1) == []
    log.begin_life(later)
    give_lease(later, 2)
    assert look(log, caplog, 3) == []
