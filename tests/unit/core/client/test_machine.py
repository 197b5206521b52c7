"""The client core as a machine: the contract that it shares with the node and the coordinator."""

from __future__ import annotations

from lockring.core.client import ClientEffect, ClientStatus, TicketState
from lockring.core.machine import Machine
from tests.unit.core.client.world import World


def test_a_client_is_a_machine_whose_endpoints_are_links() -> None:
    world = World()
    machine: Machine[int, ClientEffect, ClientStatus] = world.core
    ticket = world.acquire()
    machine.check_invariants()
    assert machine.next_deadline_ns() == world.now_ns
    status = machine.status(now_ns=world.now_ns)
    assert (status.waiting, status.parked) == (1, 1)
    assert ticket.state == TicketState.PENDING
