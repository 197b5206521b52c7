"""The contract between a machine and its shell, the same for the node, the coordinator and the client.

A machine decides and does no I/O: values go in, effects come out. A shell does I/O and decides nothing. The event
loops of the servers (`lockring.net.core_loop`), the clients' drivers and the simulation drive the machines by this
contract and know nothing else of them.

The shell calls, in this order:

1. It reads from the network, *then* reads the clock, and hands over what has arrived: `connected`, `receive` and
   `disconnected`, and the further inputs that a machine has of its own (an order of the program, a store's answer).
2. When `next_deadline_ns()` has come, and what had arrived by then was handed over, it calls `on_timer`. A process that
   was paused thus hears of a renewal that came in time before it looks for what has run out.
3. Once per turn of its loop, after all inputs, it reads the clock again, calls `take_effects`, and carries the effects
   out in their order. Rights are checked at that moment: what a paused process may no longer promise does not leave it.

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
"""What the machine calls the other end of a connection."""

EffectT = TypeVar("EffectT")
"""What it asks its shell to do."""

StatusT = TypeVar("StatusT", covariant=True)
"""What it tells about itself."""


class Machine(Protocol[EndpointT, EffectT, StatusT]):
    """A state machine without I/O. Not safe for use by several threads; see the module for the order of the calls."""

    def connected(self, endpoint: EndpointT, /, *, now_ns: int) -> None:
        """Hear that a connection is open: one that was accepted, or one that the machine asked for.

        Args:
            endpoint: the other end.
            now_ns: the monotonic clock, in nanoseconds.
        """

    def receive(self, sender: EndpointT, message: Message, /, *, now_ns: int) -> None:
        """Take one message.

        Args:
            sender: the endpoint on which it came.
            message: any message that the kind of connection accepts.
            now_ns: the monotonic clock, read after the message was.
        """

    def disconnected(self, endpoint: EndpointT, /, *, now_ns: int) -> None:
        """Hear that a connection is over, or could not be opened. Nothing more comes from this endpoint.

        Args:
            endpoint: the other end.
            now_ns: the monotonic clock, in nanoseconds.
        """

    def next_deadline_ns(self) -> int | None:
        """Return when `on_timer` is to be called, on the monotonic clock; None for never. Changes nothing."""

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due. Calling it too early does no harm.

        Args:
            now_ns: the monotonic clock, in nanoseconds.
        """

    def take_effects(self, *, now_ns: int) -> list[EffectT]:
        """Return what is to be done, and forget it.

        Args:
            now_ns: the monotonic clock, read again for this call: the machine gives only promises that it may still give.

        Returns:
            The effects, to be carried out in their order.
        """

    def check_invariants(self) -> None:
        """Check what must hold between any two calls. For tests: it looks at everything.

        Raises:
            AssertionError: the machine contradicts itself.
        """

    def status(self, *, now_ns: int) -> StatusT:
        """Return what the machine says about itself, for people. Changes nothing.

        Args:
            now_ns: the monotonic clock, in nanoseconds.
        """
