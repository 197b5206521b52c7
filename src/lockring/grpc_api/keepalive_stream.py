"""A `KeepAlive` stream: each lock that a request lists is renewed at its own primary, and answered for when that has answered.

Each lock is a session of its own on the wire (see `waiting`), so what a request leaves out is renewed or not by others, and never
given up. Answers leave as they come in, many in one message: a primary that has just died holds up only its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from lockring.clock import monotonic_ns
from lockring.errors import InternalError, LockringError
from lockring.grpc_api.acquire_call import keepalive_of
from lockring.grpc_api.router import AGAIN, Forwarder
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import Generation, SessionId
from lockring.protocol import KeepaliveReply, LossNotice, Verdict
from lockring.slots import slot_of
from lockring.units import NS_PER_MS, NS_PER_S

LOCKS_PER_REQUEST_MAX: Final = 1_000
OPEN_MAX: Final = 2_000
"""Locks of one stream whose verdict is outstanding, or not read by the client; beyond, its requests are read no further."""

LOCKS_PER_STREAM_MAX: Final = 10_000
"""Locks of one stream whose loss is told unasked: those that were listed last. Of others it is told when they are listed."""

_TRY_NS_MAX: Final = 2 * NS_PER_S

_VERDICTS: Final = {
    Verdict.HELD: pb.VERDICT_HELD,
    Verdict.LOST: pb.VERDICT_LOST,
    Verdict.WAITING: pb.VERDICT_WAITING,
}


log = logging.getLogger("lockring.grpc")


class KeptLock(NamedTuple):
    """A lock that a client lists, checked. `wire_session` is the one on the wire."""

    name: str
    session: str
    key: str
    wire_session: SessionId
    ttl_ms: int
    generation: Generation


class KeepStream:
    """One stream.

    Args:
        forwarder: finds the primaries.
    """

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._ready: dict[int, list[pb.KeptLock]] = {}
        self._change = asyncio.Event()
        self._room = asyncio.Event()
        self._renewals: set[asyncio.Task[None]] = set()
        self._known: dict[SessionId, KeptLock] = {}
        self._error: LockringError | None = None
        self._is_over = False
        self._unsent = 0

    def renew(self, sequence: int, locks: list[KeptLock]) -> None:
        """Begin to renew locks."""
        for each in locks:
            if each.wire_session not in self._known:
                if len(self._known) >= LOCKS_PER_STREAM_MAX:
                    self._forget(next(iter(self._known)))
                self._forwarder.listen(each.wire_session, self._lost)
            else:
                del self._known[each.wire_session]  # those that were listed last are at the end
            self._known[each.wire_session] = each
            task = asyncio.get_running_loop().create_task(self._renew(sequence, each))
            self._renewals.add(task)
            task.add_done_callback(self._renewed)
        if not locks:
            self._ready.setdefault(sequence, [])
            self._unsent += 1
            self._change.set()

    async def room(self) -> None:
        """Wait until there is room for another request."""
        while len(self._renewals) + self._unsent >= OPEN_MAX:
            self._room.clear()
            await self._room.wait()

    def end(self, error: LockringError | None = None) -> None:
        """No more requests will come: `responses` ends once all are answered, or with the error at once."""
        self._is_over = True
        self._error = self._error or error
        self._change.set()

    def close(self) -> None:
        """Stop everything."""
        for task in self._renewals:
            task.cancel()
        for session in self._known:
            self._forwarder.unlisten(session, self._lost)
        self._known.clear()

    async def responses(self) -> AsyncIterator[pb.KeepAliveResponse]:
        """What to answer, as it becomes known.

        Raises:
            LockringError: what `end` was given, or a bug of ours.
        """
        while True:
            ready, self._ready = self._ready, {}
            self._unsent = 0
            self._room.set()
            for sequence, locks in ready.items():
                for first in range(0, max(1, len(locks)), LOCKS_PER_REQUEST_MAX):
                    part = locks[first : first + LOCKS_PER_REQUEST_MAX]
                    yield pb.KeepAliveResponse(sequence=sequence, locks=part)
            if self._error is not None:
                raise self._error
            if self._is_over and not self._renewals and not self._ready:
                return
            if not self._ready:
                self._change.clear()
                await self._change.wait()

    # ----------------------------------------------------------------------- inner

    def _forget(self, session: SessionId) -> None:
        if self._known.pop(session, None) is not None:
            self._forwarder.unlisten(session, self._lost)

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewals.discard(task)
        self._room.set()
        self._change.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("this is a bug in lockring: a renewal has failed", exc_info=error)
            self._error = self._error or InternalError("a renewal has failed; the node's log says more")

    async def _renew(self, sequence: int, lock: KeptLock) -> None:
        until_ns = monotonic_ns() + min(_TRY_NS_MAX, lock.ttl_ms * NS_PER_MS // 3)
        attempts = 0
        while True:
            try:
                port = await self._forwarder.port_of(self._forwarder.primary_of(slot_of(lock.name)), until_ns)
                kept = await self._forwarder.ask_once(
                    port,
                    lambda number, version: keepalive_of(
                        number, version, name=lock.name, session=lock.wire_session, ttl_ms=lock.ttl_ms
                    ),
                    until_ns,
                )
            except AGAIN:
                verdict = None
            except LockringError as error:
                # Something is wrong with how this one is listed; the others are none the worse for it.
                self._tell(sequence, lock, pb.KeptLock(verdict=pb.VERDICT_REFUSED, reason=str(error)))
                return
            else:
                assert isinstance(kept, KeepaliveReply)
                verdict = self._judge(lock, kept)
            if verdict is None and monotonic_ns() < until_ns:
                await self._forwarder.pause(attempts, until_ns)
                attempts += 1
                continue
            self._tell(sequence, lock, verdict or pb.KeptLock(verdict=pb.VERDICT_UNKNOWN))
            return

    def _judge(self, lock: KeptLock, kept: KeepaliveReply) -> pb.KeptLock | None:
        """What a node's answer says of the lock; None if it says nothing."""
        for _, verdict, generation in kept.acquisitions:
            if verdict == Verdict.HELD and lock.generation not in (0, generation):
                return pb.KeptLock(verdict=pb.VERDICT_LOST, reason="regranted")
            if verdict == Verdict.HELD:
                if kept.promise_ms <= 0:
                    return None
                return pb.KeptLock(verdict=pb.VERDICT_HELD, lease_ms=kept.promise_ms, generation=generation)
            if verdict in _VERDICTS:
                reason = "expired" if verdict == Verdict.LOST else ""
                return pb.KeptLock(verdict=_VERDICTS[Verdict(verdict)], reason=reason)
        return None

    def _tell(self, sequence: int, lock: KeptLock, kept: pb.KeptLock) -> None:
        kept.name, kept.session, kept.idempotency_key = lock.name, lock.session, lock.key
        if kept.verdict == pb.VERDICT_LOST:
            self._forget(lock.wire_session)
        self._ready.setdefault(sequence, []).append(kept)
        self._unsent += 1
        self._change.set()

    def _lost(self, lost: LossNotice) -> None:
        lock = self._known.get(lost.session)
        if lock is not None and lock.name == lost.name:
            self._tell(0, lock, pb.KeptLock(verdict=pb.VERDICT_LOST, reason=lost.reason))
