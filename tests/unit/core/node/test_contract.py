"""The node's core is a machine, as its shells drive it."""

from __future__ import annotations

from lockring.cluster_state import Replica
from lockring.core.effects import Effect, Endpoint
from lockring.core.machine import Machine
from lockring.core.node import NodeCore, NodeStatus


def test_a_node_is_a_machine() -> None:
    machine: Machine[Endpoint, Effect, NodeStatus] = NodeCore(Replica("A", 1), now_ns=0)
    machine.on_timer(now_ns=0)
    assert machine.take_effects(now_ns=0) == []
    machine.check_invariants()
    assert machine.next_deadline_ns() is not None
    assert machine.status(now_ns=0).replica == Replica("A", 1)
