"""A `KeepAlive` stream: each lock in a request is renewed at its own primary, and answered for when that has answered.

Each lock is a session of its own on the wire (see `driver`), and need not have been acquired through this node.
So a lock that a request leaves out is not given up. Answers leave as they come in, many in one message:
a primary that has just died holds up only its own locks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NamedTuple, Protocol

from lockring.core.client import ClientCore, LossOnBehalf, Query
from lockring.errors import InternalError, LockringError
from lockring.grpc_api.driver import AGAIN, LossHandler
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import Generation, LockName, SessionId
from lockring.log_events import event
from lockring.protocol import KeepaliveReply, Verdict
from lockring.units import NS_PER_MS, NS_PER_S

log = logging.getLogger("lockring.grpc")

LOCKS_PER_REQUEST_MAX: Final = 1_000
OPEN_MAX: Final = 2_000
"""Locks of one stream whose verdict is outstanding or unread. Beyond, no more of its requests are read."""

LOCKS_PER_STREAM_MAX: Final = 10_000
"""Locks of one stream whose loss is reported unasked: those that were listed last."""

_TRY_NS_MAX: Final = 2 * NS_PER_S

_VERDICTS: Final = {
    Verdict.HELD: pb.VERDICT_HELD,
    Verdict.LOST: pb.VERDICT_LOST,
    Verdict.WAITING: pb.VERDICT_WAITING,
}


class Renewer(Protocol):
    """The driver, as a stream sees it."""

    def begin(self, question: Callable[[ClientCore, int], Query]) -> Query:
        """Ask something of the core; the query's `call` is the future of its answer and its error."""

    def abandon(self, request: Query) -> None:
        """Withdraw what was begun."""

    def listen(self, session: SessionId, handler: LossHandler) -> None:
        """Call `handler` with each loss that a node reports of this session."""

    def unlisten(self, session: SessionId, handler: LossHandler) -> None:
        """Undo `listen`."""


class KeptLock(NamedTuple):
    """A lock that a client lists, checked. `wire_session` is the one on the wire."""

    name: LockName
    session: str
    key: str
    wire_session: SessionId
    ttl_ms: int
    generation: Generation


class KeepStream:
    """One stream.

    Args:
        driver: asks the primaries.
    """

    def __init__(self, driver: Renewer) -> None:
        self._driver = driver
        self._ready: dict[int, list[pb.KeptLock]] = {}
        self._change = asyncio.Event()
        self._room = asyncio.Event()
        self._renewals: dict[Query, None] = {}
        self._known: dict[SessionId, KeptLock] = {}
        self._error: Exception | None = None
        self._is_over = False
        self._unsent = 0

    def renew(self, sequence: int, locks: list[KeptLock]) -> None:
        """Begin to renew locks."""
        for each in locks:
            if each.wire_session not in self._known:
                if len(self._known) >= LOCKS_PER_STREAM_MAX:
                    self._forget(next(iter(self._known)))
                self._driver.listen(each.wire_session, self._lost)
            else:
                del self._known[each.wire_session]  # those that were listed last are at the end
            self._known[each.wire_session] = each
            request = self._driver.begin(functools.partial(_renewal_of, each))
            self._renewals[request] = None
            request.exchange.call.add_done_callback(functools.partial(self._renewed, sequence, each, request))
        if not locks:
            self._ready.setdefault(sequence, [])
            self._unsent += 1
            self._change.set()

    async def room(self) -> None:
        """Wait until there is room for another request."""
        while len(self._renewals) + self._unsent >= OPEN_MAX:
            self._room.clear()
            await self._room.wait()

    def end(self, error: Exception | None = None) -> None:
        """End the requests: `responses` ends once all are answered, or with the error at once."""
        self._is_over = True
        self._error = self._error or error
        self._change.set()

    def close(self) -> None:
        """Stop everything."""
        self._error = None  # its traceback has the stream: memory that only a collection would free
        for request in self._renewals:
            self._driver.abandon(request)
        self._renewals.clear()
        for session in self._known:
            self._driver.unlisten(session, self._lost)
        self._known.clear()

    async def responses(self) -> AsyncIterator[pb.KeepAliveResponse]:
        """Yield the answers as they become known.

        Raises:
            Exception: the error that `end` was given.
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
            self._driver.unlisten(session, self._lost)

    def _renewed(
        self,
        sequence: int,
        lock: KeptLock,
        request: Query,
        answered: asyncio.Future[tuple[Any, LockringError | None]],
    ) -> None:
        if answered.cancelled() or self._renewals.pop(request, self) is self:
            return  # the stream was closed
        self._room.set()
        try:
            self._tell(sequence, lock, _kept(lock, *answered.result()))
        except Exception as error:  # noqa: BLE001 - logged; it must end this stream, and not the node
            self._fail("a renewal", error)

    def _tell(self, sequence: int, lock: KeptLock, kept: pb.KeptLock) -> None:
        kept.name, kept.session, kept.idempotency_key = lock.name, lock.session, lock.key
        if kept.verdict in (pb.VERDICT_LOST, pb.VERDICT_REFUSED):
            self._forget(
                lock.wire_session
            )  # one that was refused may be another client's, whose losses are its own
        self._ready.setdefault(sequence, []).append(kept)
        self._unsent += 1
        self._change.set()

    def _lost(self, lost: LossOnBehalf) -> None:
        lock = self._known.get(lost.session)
        if lock is not None and lock.name == lost.name and not 0 < lost.generation < lock.generation:
            try:
                self._tell(0, lock, pb.KeptLock(verdict=pb.VERDICT_LOST, reason=lost.reason))
            except Exception as error:  # noqa: BLE001 - logged; it must not keep the driver from its other work
                self._fail("the report of a loss", error)

    def _fail(self, what: str, error: Exception) -> None:
        """End the stream because of a bug: its client must not wait for an answer that does not come."""
        log.error("this is a bug in lockring: %s has failed", what, exc_info=error, extra=event("bug"))
        self.end(InternalError(f"{what} has failed; the node's log says more"))


def _kept(lock: KeptLock, reply: KeepaliveReply, error: LockringError | None) -> pb.KeptLock:
    """Return the answer about a lock: what its primary says of it, or the lack of that."""
    if error is None:
        return _verdict_on(lock, reply)
    if isinstance(error, AGAIN):
        return pb.KeptLock(verdict=pb.VERDICT_UNKNOWN)
    # Something is wrong with how this one is listed; the others are none the worse for it.
    return pb.KeptLock(verdict=pb.VERDICT_REFUSED, reason=str(error))


def _renewal_of(lock: KeptLock, core: ClientCore, now_ns: int) -> Query:
    """Begin to renew a lock."""
    give_up_at_ns = now_ns + min(_TRY_NS_MAX, lock.ttl_ms * NS_PER_MS // 3)
    return core.renew_for(
        lock.wire_session, lock.name, ttl_ms=lock.ttl_ms, give_up_at_ns=give_up_at_ns, now_ns=now_ns
    )


def _verdict_on(lock: KeptLock, reply: KeepaliveReply) -> pb.KeptLock:
    """Return the meaning of a node's answer for the client."""
    for answer in reply.acquisitions:
        verdict, generation = answer.verdict, answer.generation
        if verdict == Verdict.HELD and lock.generation not in (0, generation):
            return pb.KeptLock(verdict=pb.VERDICT_LOST, reason="regranted")
        if verdict == Verdict.HELD:
            return pb.KeptLock(verdict=pb.VERDICT_HELD, lease_ms=reply.promise_ms, generation=generation)
        if verdict in _VERDICTS:
            reason = "expired" if verdict == Verdict.LOST else ""
            return pb.KeptLock(verdict=_VERDICTS[Verdict(verdict)], reason=reason)
    return pb.KeptLock(verdict=pb.VERDICT_UNKNOWN)
