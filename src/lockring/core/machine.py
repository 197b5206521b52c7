"""The contract between a machine and its shell, the same for the node, the coordinator and the client.

A machine decides and does no I/O: values go in, effects come out. A shell does I/O and decides nothing. The event
loops of the servers (`lockring.net.core_loop`), the clients' drivers and the simulation drive the machines by this
contract and know nothing else of them.

The shell calls, in this order:

1. It reads from the network, *then* reads the clock, and passes the input on: `connected`, `receive` and
   `disconnected`, and the further inputs that a machine has of its own (an order of the program, a store's answer).
2. When `next_deadline_ns()` has come, and all input that had arrived until then was passed on, it calls `on_timer`. A
   process that was paused thus receives a renewal that came in time before it looks for leases that have run out.
3. Once per turn of its loop, after all inputs, it reads the clock again, calls `take_effects`, and carries the effects
   out in their order. Rights are checked at that moment, so a promise that a paused process may no longer give is held
   back.

A machine may assume that

- `now_ns` is a monotonic clock that goes on while the computer sleeps, and does not fall from one call to the next;
- calls come one at a time;
- messages of one endpoint arrive in the order in which they were sent, and none after its `disconnected`;
- an endpoint is never used again for another connection.

A shell may assume that

- no input raises for what came from the network: bad input is answered, or its connection is closed;
- effects to one endpoint leave in their order, and one to an endpoint that is gone may be dropped: the machine hears of
  that by `disconnected`, and sends again what matters;
- no call blocks, and each ends in a time that is bounded by what it was given.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from lockring.protocol import Message

EndpointT = TypeVar("EndpointT", contravariant=True)
"""The machine's name for the other end of a connection."""

EffectT = TypeVar("EffectT")
"""A request of the machine to its shell."""

StatusT = TypeVar("StatusT", covariant=True)
"""The machine's description of itself, for people."""


class Machine(Protocol[EndpointT, EffectT, StatusT]):
    """A state machine without I/O. Not safe for use by several threads; see the module for the order of the calls."""

    def connected(self, endpoint: EndpointT, /, *, now_ns: int) -> None:
        """Note that a connection is open: one that was accepted, or one that the machine asked for.

        Args:
            endpoint: the other end.
            now_ns: the monotonic clock, in nanoseconds.
        """

    def receive(self, sender: EndpointT, message: Message, /, *, now_ns: int) -> None:
        """Handle one message.

        Args:
            sender: the endpoint on which it came.
            message: any message that the kind of connection accepts.
            now_ns: the monotonic clock, read after the message was.
        """

    def disconnected(self, endpoint: EndpointT, /, *, now_ns: int) -> None:
        """Note that a connection is over, or could not be opened. Nothing more comes from this endpoint.

        Args:
            endpoint: the other end.
            now_ns: the monotonic clock, in nanoseconds.
        """

    def next_deadline_ns(self) -> int | None:
        """Return when to call `on_timer`, on the monotonic clock; None for never. Changes nothing."""

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due. Calling it too early does no harm.

        Args:
            now_ns: the monotonic clock, in nanoseconds.
        """

    def take_effects(self, *, now_ns: int) -> list[EffectT]:
        """Hand out the effects since the last call, and forget them.

        Args:
            now_ns: the monotonic clock, read again for this call: promises that the machine may no longer give are
                held back.

        Returns:
            The effects, to be carried out in their order.
        """

    def check_invariants(self) -> None:
        """Check the invariants that hold between any two calls. For tests: it looks at everything.

        Raises:
            AssertionError: the machine contradicts itself.
        """

    def status(self, *, now_ns: int) -> StatusT:
        """Return the machine's description of itself, for people. Changes nothing.

        Args:
            now_ns: the monotonic clock, in nanoseconds.
        """
