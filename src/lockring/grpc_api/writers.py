"""The calls of one connection whose responses wait for room, and the order in which they go on.

Rules:

- Room of the connection wakes one call. Once that has sent a part, or has found that it may not, the next one is woken
  while room is left. So a client that gives room in tiny portions has one call look for it, and not all of them.
- A call whose own stream has no room waits apart, until its client gives room to that stream.
"""

from __future__ import annotations

from collections import OrderedDict

from lockring.grpc_api.call import GrpcCall


class WaitingWriters:
    """The calls that wait. Lives in one event loop."""

    def __init__(self) -> None:
        self._queue: OrderedDict[GrpcCall, None] = OrderedDict()
        self._stalled: dict[GrpcCall, None] = {}
        self._awake: GrpcCall | None = None

    @property
    def stalled_count(self) -> int:
        """How many calls wait for room of their own streams."""
        return len(self._stalled)

    def queue(self, call: GrpcCall) -> None:
        """Let a call wait for room of the connection. One that was woken and came too late stays the first."""
        self._stalled.pop(call, None)
        self._queue[call] = None
        if self._awake is call:
            self._awake = None
            self._queue.move_to_end(call, last=False)

    def stall(self, call: GrpcCall) -> None:
        """Let a call wait for room of its own stream."""
        self.leave(call)
        self._stalled[call] = None

    def leave(self, call: GrpcCall) -> None:
        """Note that a call has sent a part, or has ended: it does not wait, and its turn is over."""
        self._queue.pop(call, None)
        self._stalled.pop(call, None)
        if self._awake is call:
            self._awake = None

    def wake(self, call: GrpcCall) -> None:
        """Wake a call whose own stream has got room, if it waits for that."""
        if call in self._stalled:
            del self._stalled[call]
            call.wake_writer()

    def queue_stalled(self) -> None:
        """Let all streams look for room again, in turn: the client has changed the room of each."""
        self._queue.update(self._stalled)
        self._stalled.clear()

    def wake_next(self) -> None:
        """Wake the first call of the queue, unless one that was woken has not gone on yet."""
        if self._queue and self._awake is None:
            self._awake, _ = self._queue.popitem(last=False)
            self._awake.wake_writer()
