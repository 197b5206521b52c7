"""All three cores are machines: by type, by signature, and in what the loops take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from lockring.cluster_state import Replica
from lockring.core.client import ClientCore, ClientEffect, ClientStatus, TicketState
from lockring.core.coordinator import CoordinatorCore, CoordinatorStatus
from lockring.core.effects import Effect, Endpoint
from lockring.core.machine import Machine
from lockring.core.node import NodeCore, NodeStatus
from lockring.ids import ConnectionId, LinkId
from lockring.net.core_loop import CoreLoop
from tests.sim.framework.world import Process
from tests.unit.core.client.world import World as ClientWorld
from tests.unit.core.coordinator.world import World as CoordinatorWorld

CORES = (NodeCore, CoordinatorCore, ClientCore)
METHODS = sorted(name for name in vars(Machine) if callable(getattr(Machine, name)) and name[0] != "_")


def shape(method: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Names and kinds of a method's mandatory parameters; a positional one may have any name."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [
        ("", "positional") if each.kind in positional else (each.name, each.kind)
        for each in parameters
        if each.kind in positional or each.default is inspect.Parameter.empty or each.name == "now_ns"
    ]


def test_the_contract_has_these_methods() -> None:
    assert METHODS == [
        "check_invariants",
        "connected",
        "disconnected",
        "next_deadline_ns",
        "on_timer",
        "receive",
        "status",
        "take_effects",
    ]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("name", METHODS)
def test_a_core_has_the_methods_of_the_contract_with_its_parameters(core: type, name: str) -> None:
    assert shape(getattr(core, name)) == shape(getattr(Machine, name))


def test_a_node_is_a_machine() -> None:
    machine: Machine[Endpoint, Effect, NodeStatus] = NodeCore(Replica("A", 1), now_ns=0)
    machine.on_timer(now_ns=0)
    assert machine.take_effects(now_ns=0) == []
    machine.check_invariants()
    assert machine.next_deadline_ns() is not None
    assert machine.status(now_ns=0).replica == Replica("A", 1)


def test_a_coordinator_is_a_machine() -> None:
    world = CoordinatorWorld()
    machine: Machine[ConnectionId, Effect, CoordinatorStatus] = world.core
    machine.on_timer(now_ns=world.read_clocks())
    machine.check_invariants()
    assert machine.status(now_ns=world.now_ns).phase == "active"


def test_a_client_is_a_machine_whose_endpoints_are_links() -> None:
    world = ClientWorld()
    machine: Machine[LinkId, ClientEffect, ClientStatus] = world.core
    ticket = world.acquire()
    machine.check_invariants()
    assert machine.next_deadline_ns() == world.now_ns
    status = machine.status(now_ns=world.now_ns)
    assert (status.waiting, status.parked) == (1, 1)
    assert ticket.state == TicketState.PENDING


def test_the_servers_loop_and_the_simulation_take_a_machine() -> None:
    assert inspect.signature(CoreLoop).parameters["machine"].annotation == "Machine[Any, EffectT, Any]"
    assert Process.__annotations__["core"] == "Machine[Any, Any, Any] | None"
