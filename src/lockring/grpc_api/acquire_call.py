"""A `Lock` call: from its arrival to the grant, over as many primaries as the lock has meanwhile.

Each acquisition of a gRPC client is a session of its own on the wire. So each has its own lease, no answer about one
says anything of another, and what a client forgets ends by itself.

- While the call is open, this node keeps the waiter alive, and takes it to the next primary with the time that it has waited.
- A call that ends without its grant takes back what it has asked for: only that, and not what a repetition of the call (at
  another node, by a client that has lost its connection to this one) has asked for or was told since. See `Release.acquire`.
- The lease in the answer counts from the call's arrival. What the wait took by this node's clock is shortened by the
  5 % by which the client's clock may differ.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from lockring.clock import monotonic_ns
from lockring.core.digest import mix
from lockring.errors import Moved, Unavailable
from lockring.grpc_api.channels import ChannelCall, NodeChannel
from lockring.grpc_api.router import AGAIN, Forwarder, checked
from lockring.ids import AcquisitionNumber, Generation, NodeId, RequestNumber, SessionId, Version
from lockring.protocol import (
    WAIT_FOREVER,
    Acquire,
    GrantReply,
    Keepalive,
    KeepaliveReply,
    Message,
    Release,
    Verdict,
)
from lockring.slots import slot_of
from lockring.units import NS_PER_MS, NS_PER_S

ACQUISITION: Final = AcquisitionNumber(1)
"""The number of the only acquisition of each session here."""

_ANSWER_NS: Final = NS_PER_S
"""Least time for which an answer is tried to be got, also by who does not want to wait for the lock."""


class AcquireParams(NamedTuple):
    """What a `Lock` call asks for, checked. `session` is the one on the wire; the wait is None for no bound."""

    name: str
    session: SessionId
    ttl_ms: int
    owner: str
    wait_ms: int | None
    waited_ms: int
    mode: int
    permits: int
    payload: bytes


class PromisedGrant(NamedTuple):
    """A lock that is held: for `promise_ms` from `sent_at_ns`, by this node's clock."""

    generation: Generation
    sent_at_ns: int
    promise_ms: int
    primary: str


def keepalive_of(
    number: RequestNumber, version: Version, *, name: str, session: SessionId, ttl_ms: int, owner: str = ""
) -> Message:
    """The message that renews one acquisition and asks what became of it."""
    return Keepalive(
        number,
        session,
        ttl_ms,
        owner,
        ACQUISITION,
        1,
        mix(ACQUISITION),
        [],
        [(slot_of(name), [(ACQUISITION, name)])],
        version,
    )


def lease_ms(grant: PromisedGrant, arrived_ns: int) -> int:
    """How long a lock is surely held, counted by the client from before its call arrived here."""
    return grant.promise_ms + max(0, grant.sent_at_ns - arrived_ns) * 100 // 105 // NS_PER_MS


class AcquireCall:
    """One `Lock` call.

    Args:
        forwarder: finds the primary.
        wanted: what is asked for.
        arrived_ns: when the call arrived.
    """

    def __init__(self, forwarder: Forwarder, wanted: AcquireParams, arrived_ns: int) -> None:
        self._forwarder = forwarder
        self._wanted = wanted
        self._arrived_ns = arrived_ns
        self._slot = slot_of(wanted.name)
        self._keepalive_ns = wanted.ttl_ms * NS_PER_MS // 3
        self._wait_until_ns = None if wanted.wait_ms is None else arrived_ns + wanted.wait_ms * NS_PER_MS
        self._asked: tuple[NodeChannel, RequestNumber] | None = None

    async def granted(self) -> PromisedGrant:
        """Wait for the lock. Whatever ends this early leaves nothing behind.

        Raises:
            AcquireTimeout: it was not granted in time, since others have it.
            LockringError: what else a node answered, or `Unavailable` if none could be asked in time.
        """
        attempts = 0
        try:
            while True:
                began_ns = monotonic_ns()
                try:
                    return await self._attempt()
                except AGAIN:
                    if self._is_too_late(monotonic_ns()):
                        raise
                if monotonic_ns() - began_ns > NS_PER_S:
                    attempts = 0
                await self._forwarder.pause(attempts, self._give_up_at_ns())
                attempts += 1
        except BaseException:
            self._withdraw()
            raise

    # ----------------------------------------------------------------------- inner

    def _withdraw(self) -> None:
        """Take back what was asked for last. What cannot be taken back ends by its TTL."""
        if self._asked is None:
            return
        port, acquire = self._asked
        self._asked = None
        if port.is_up:
            wanted, version = self._wanted, self._forwarder.state.version
            port.ask(
                lambda number: Release(number, wanted.session, ACQUISITION, wanted.name, version, acquire)
            )

    def _give_up_at_ns(self) -> int:
        if self._wait_until_ns is None:
            return monotonic_ns() + 3600 * NS_PER_S
        return max(self._wait_until_ns, self._arrived_ns + _ANSWER_NS)

    def _is_too_late(self, now_ns: int) -> bool:
        return self._wait_until_ns is not None and now_ns >= self._give_up_at_ns()

    def _acquire(self, number: RequestNumber) -> Message:
        wanted, now_ns = self._wanted, monotonic_ns()
        left_ms = WAIT_FOREVER
        if self._wait_until_ns is not None:
            left_ms = max(0, -((now_ns - self._wait_until_ns) // NS_PER_MS))
        return Acquire(
            number,
            wanted.session,
            wanted.ttl_ms,
            wanted.owner,
            ACQUISITION,
            wanted.name,
            wanted.mode,
            wanted.permits,
            left_ms,
            wanted.waited_ms + (now_ns - self._arrived_ns) // NS_PER_MS,
            self._forwarder.state.version,
            payload=wanted.payload,
        )

    async def _attempt(self) -> PromisedGrant:
        """Ask the present primary, and wait there until it has answered or is the primary no more."""
        primary = self._forwarder.primary_of(self._slot)
        port = await self._forwarder.port_of(primary, self._give_up_at_ns())
        assert primary is not None
        call = port.ask(self._acquire)
        self._asked = (port, call.number)
        renew_at_ns = call.sent_at_ns + self._keepalive_ns
        try:
            while not call.answer.done():
                until_ns = min(renew_at_ns, self._give_up_at_ns() + _ANSWER_NS)
                timeout_s = max(0, until_ns - monotonic_ns()) / NS_PER_S
                ends: set[asyncio.Future[Any]] = {call.answer, self._forwarder.news}
                await asyncio.wait(
                    ends,
                    timeout=timeout_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                now_ns = monotonic_ns()
                if call.answer.done():
                    break
                if self._forwarder.primary_of(self._slot) != primary:
                    raise Moved(f"lock {self._wanted.name!r} has moved")
                if self._is_too_late(now_ns - _ANSWER_NS):
                    raise port.too_late(call, self._wanted.name)
                if now_ns >= renew_at_ns:
                    renew_at_ns = now_ns + self._keepalive_ns
                    grant = await self._keep_waiting(port, call, primary.node)
                    if grant is not None:
                        return grant
            answer = checked(call.answer.result())
        finally:
            port.forget(call)
        assert isinstance(answer, GrantReply)
        grant = PromisedGrant(answer.generation, call.sent_at_ns, answer.promise_ms, primary.node)
        left_ns = grant.sent_at_ns + grant.promise_ms * NS_PER_MS - monotonic_ns()
        if answer.basis == call.number and left_ns > self._keepalive_ns:
            return grant
        # The promise counts from some keepalive, or is nearly over: a new one is certain.
        return await self._confirmed(port, primary.node)

    async def _keep_waiting(
        self, port: NodeChannel, acquire: ChannelCall, node: NodeId
    ) -> PromisedGrant | None:
        """Keep the waiter alive; the grant, if it is one by now.

        Raises:
            Unavailable: the node does not know the waiter any more.
        """
        kept, sent_at_ns = await self._keepalive(port, acquire.answer)
        if acquire.answer.done() or not isinstance(kept, KeepaliveReply):
            return None
        for _, verdict, generation in kept.acquisitions:
            if verdict == Verdict.HELD:
                return PromisedGrant(generation, sent_at_ns, kept.promise_ms, node)
            if verdict == Verdict.LOST:
                raise Unavailable(f"the wait for {self._wanted.name!r} was not kept alive")
        return None

    async def _confirmed(self, port: NodeChannel, node: NodeId) -> PromisedGrant:
        kept, sent_at_ns = await self._keepalive(port, None)
        if isinstance(kept, KeepaliveReply):
            for _, verdict, generation in kept.acquisitions:
                if verdict == Verdict.HELD:
                    return PromisedGrant(generation, sent_at_ns, kept.promise_ms, node)
        raise Unavailable(f"the grant of {self._wanted.name!r} could not be confirmed")

    async def _keepalive(
        self, port: NodeChannel, other: asyncio.Future[Message | None] | None
    ) -> tuple[Message | None, int]:
        """Send a keepalive and wait for its answer, or for `other`, for a third of the TTL; None if it did not come."""
        wanted, version = self._wanted, self._forwarder.state.version
        call = port.ask(
            lambda number: keepalive_of(
                number,
                version,
                name=wanted.name,
                session=wanted.session,
                ttl_ms=wanted.ttl_ms,
                owner=wanted.owner,
            )
        )
        futures = {call.answer} if other is None else {call.answer, other}
        try:
            await asyncio.wait(
                futures, timeout=self._keepalive_ns / NS_PER_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            port.forget(call)
        return (call.answer.result() if call.answer.done() else None), call.sent_at_ns
