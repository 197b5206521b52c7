"""Operators' requests that a node passes on: it asks the coordinator on the operators' behalf.

- Requests get their numbers from the sequence that the node's own wish to leave is numbered by: an answer is to one of
  them.
- An answer goes back under the number that the operator's client has given the request. An operator whose connection
  has ended meanwhile gets none: the shell drops what is sent there.
- Whether the coordinator carries out a request whose answer was lost is unknown. The refusal says so, and the operator
  may ask again: both requests mean the same when they are repeated.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.effects import COORDINATOR
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.errors import Unavailable
from lockring.ids import ConnectionId, RequestNumber
from lockring.protocol import Drain, DrainReply, Refusal, Undrain, UndrainReply
from lockring.protocol.identities import Identity


class PassedOnOrder(NamedTuple):
    """A request that the coordinator has not answered yet.

    Attributes:
        connection: the operator's.
        request: the number of the request there.
    """

    connection: ConnectionId
    request: RequestNumber


class OperatorOrders:
    """The requests of operators to the coordinator, by the number that it knows them by."""

    def __init__(self, context: NodeContext, tie: CoordinatorTie) -> None:
        self._context = context
        self._tie = tie
        self._open: dict[RequestNumber, PassedOnOrder] = {}

    def pass_on(self, connection: ConnectionId, order: Drain | Undrain, asker: Identity | None) -> None:
        """Ask the coordinator for what an operator wants; without a coordinator the request is refused.

        Args:
            connection: the operator's.
            order: the request. The identity that it names counts for nothing.
            asker: the operator's identity, None at a node that checks none.
        """
        if not self._tie.is_up:
            text = f"the coordinator cannot be asked: {self._tie.note}"
            self._refuse(PassedOnOrder(connection, order.request), text, order.node)
            return
        number = self._tie.number_request()
        self._open[number] = PassedOnOrder(connection, order.request)
        # The kind of message stays, whichever node it is about: an operator's drain of this very node is refused where
        # the node's own wish to leave is not.
        self._context.outbox.send(COORDINATOR, type(order)(number, order.node, asker))

    def answered(self, answer: DrainReply | UndrainReply | Refusal) -> None:
        """Pass an answer of the coordinator to the operator; one to an unknown request is dropped."""
        order = self._open.pop(answer.request, None)
        if order is not None:
            answer.request = order.request
            self._context.outbox.send(order.connection, answer)

    def coordinator_lost(self) -> None:
        """Refuse what the coordinator has not answered: on another connection it does not know these numbers."""
        lost, self._open = self._open, {}
        for order in lost.values():
            self._refuse(order, "the coordinator went away before it answered")

    def _refuse(self, order: PassedOnOrder, text: str, name: str = "") -> None:
        self._context.outbox.send(order.connection, Refusal(order.request, Unavailable.code, text, name))
