"""Clients in the node's own process, against a real life of a node."""

from __future__ import annotations

import pytest

from lockring.clock import monotonic_ns
from lockring.cluster_state import Replica
from lockring.core.effects import COORDINATOR
from lockring.net.connection import Outbox
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    Message,
    Refusal,
    UndrainReply,
    Welcome,
)
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN
from lockring.server.coordinator_link import NodePlace
from lockring.server.local_client import LocalClients
from lockring.server.node_life import NodeLife
from tests.unit.net.serving import run


class Operators:
    """A life of a node, and operators in its process."""

    def __init__(self) -> None:
        self.clients = LocalClients(lambda: self.life, NodePlace(weight=100))
        self.life = NodeLife(
            Replica("N1", 1),
            outbox=Outbox(),
            gate=AccessGate(OPEN, server="N1"),
            coordinator=lambda: None,  # what is sent to it gets lost
            on_state=lambda _: None,
            on_depart=lambda _: None,
        )
        self.answers: list[DrainReply | UndrainReply | Refusal] = []

    def order(self) -> None:
        """Ask for a drain, and carry out what the core makes of it."""
        self.clients.pass_on(Drain(0, "N2"), self.answers.append)
        self.life.pump.flush()


@pytest.mark.parametrize("reason", ["this node begins a new life", "this node stops"])
def test_an_operator_hears_why_the_node_ended_the_connection_before_the_coordinator_answered(
    reason: str,
) -> None:
    async def main() -> None:
        operators = Operators()
        operators.life.core.connected(COORDINATOR, now_ns=monotonic_ns())
        operators.order()
        assert operators.answers == []
        operators.life.end(reason)
        (refused,) = operators.answers
        assert isinstance(refused, Refusal)
        assert (refused.code, refused.text.rpartition(": ")[2]) == ("unavailable", reason)

    run(main())


def test_an_operator_gets_the_coordinators_answer_once() -> None:
    async def main() -> None:
        operators = Operators()
        core = operators.life.core
        core.connected(COORDINATOR, now_ns=monotonic_ns())
        operators.order()
        core.receive(COORDINATOR, DrainReply(1, "N2"), now_ns=monotonic_ns())
        operators.life.pump.flush()
        operators.life.end("this node stops")
        assert operators.answers == [DrainReply(1, "N2")]
        assert operators.life.guests == {}, "the operator has hung up"

    run(main())


def test_an_operator_is_refused_at_once_while_the_coordinator_is_away() -> None:
    async def main() -> None:
        operators = Operators()
        operators.order()
        (refused,) = operators.answers
        assert isinstance(refused, Refusal)
        assert refused.code == "unavailable"

    run(main())


def test_a_refused_client_of_the_process_hears_the_error_and_then_the_end() -> None:
    async def main() -> None:
        operators = Operators()
        heard: list[Message] = []
        ended: list[str] = []
        line = operators.clients.connect_local(heard.append, ended.append)
        line.ask(ClientHello(PROTOCOL, "another", "client", 1))
        operators.life.pump.flush()
        (refused,) = heard
        assert isinstance(refused, Refusal)
        assert (refused.code, ended) == ("unavailable", ["it was refused"])
        line = operators.clients.connect_local(heard.append, ended.append)
        line.ask(ClientHello(PROTOCOL, "", "client", 1))
        operators.life.pump.flush()
        assert isinstance(heard[1], Welcome)

    run(main())
