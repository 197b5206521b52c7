"""The client, without I/O: what both shells and the simulation run.

Theory of operation:

- A call makes a ticket (`acquire`) or a request (`describe`, …). It is sent to the primary of its slot, or
  *parked* until there is a route and a link to it. What was open on a link that broke is parked again;
  whatever was refused as moved, unavailable or overloaded waits a moment and is sent again.
- An acquire is repeated under the same acquisition number, so it never makes a second holder or waiter. A release
  names its acquisition and is repeated until it is answered, or until no lease can be left.
- What a node promises counts from when the request was sent. Once a deadline has passed, the ticket is lost:
  `GrantLost` comes out, and a release is sent, so that others need not wait for the node's own clock.
- Per session and node one keepalive each third of the TTL speaks of all tickets there by count and digest. If
  the node does not agree it is repeated with a digest per slot, then with the acquisitions of the slots that
  differ. It is sent at once where tickets came to another node, or to a new connection.
- Inputs return nothing or a ticket; `take_effects` has what to do. `next_deadline_ns` is a lower bound: it may
  come early, never late. Not thread-safe: a shell with threads guards it with a lock, and reads the clock inside.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

from lockring.core.client.effects import ClientEffect, Resolve
from lockring.core.client.links import READY, NodeLink
from lockring.core.client.outstanding import ANSWER_NS, ENDED, HELD, PENDING, RELEASING, not_held
from lockring.core.client.queries import ANSWERS, ANYWHERE, ListProgress, Query, QueryKind, drain_request
from lockring.core.client.refusals import ClosingSession, Refusals
from lockring.core.client.status import ClientStatus, check_invariants, status_of
from lockring.core.client.tickets import ClientSession, Ticket, deadline_of
from lockring.core.client.watches import update_of
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import ClientClosed, LockringError, ProtocolError, Unavailable, from_code
from lockring.protocol import (
    WAIT_FOREVER,
    CloseSession,
    GrantReply,
    KeepaliveReply,
    ListReply,
    LossNotice,
    Message,
    Mode,
    QueueNotice,
    Refusal,
    ReleaseReply,
    Routes,
    SettlementNotice,
    TroubleNotice,
    Unwatch,
    View,
    WatchNotice,
    Welcome,
)
from lockring.slots import SLOTS, slot_of
from lockring.units import NS_PER_MS, NS_PER_S

CLOSE_NS: Final = NS_PER_S
"""How long a closing client waits for the nodes to confirm."""


class ClientCore(Refusals):
    """The client's state machine; see the module for the rules."""

    # ------------------------------------------------------------------ calls

    def acquire(
        self,
        name: str,
        *,
        ttl_ms: int,
        now_ns: int,
        wait_ms: int = WAIT_FOREVER,
        mode: int = Mode.EXCLUSIVE,
        permits: int = 1,
        payload: bytes = b"",
    ) -> Ticket:
        """Begin to acquire a lock; `Resolve` tells the outcome.

        Args:
            name: a checked lock name.
            ttl_ms: the lease; acquisitions with the same TTL share a session.
            now_ns: the time.
            wait_ms: longest wait for other holders, 0 to try once, or `WAIT_FOREVER`. An unreachable server is
                waited for at least `ANSWER_NS`.
            mode: exclusive, shared or semaphore.
            permits: of a semaphore, how many.
            payload: what others are to see of the holder, `protocol.PAYLOAD_BYTES_MAX` at the most.

        Raises:
            ClientClosed: the client was closed.
        """
        session = self._sessions.get(ttl_ms)
        if self._closed or session is None:
            session = self._open_session(ttl_ms)
        session.used = acquisition = session.used + 1
        slot = crc32(name.encode()) % SLOTS
        ticket = Ticket(session, acquisition, name, slot, mode, permits, now_ns)
        if payload:
            ticket.payload = payload
        if wait_ms >= 0:
            wait_ns = wait_ms * NS_PER_MS
            ticket.wait_until_ns = now_ns + wait_ns
            ticket.give_up_at_ns = at_ns = now_ns + (wait_ns if wait_ns > ANSWER_NS else ANSWER_NS)
            self._alarms.push(at_ns, ticket)
            if at_ns < self._wake_ns:
                self._wake_ns = at_ns
        elif not self._routing.was_ready:
            self._alarm(now_ns + self._connect_timeout_ns, ticket)
        node = self._routing.table[slot]
        if node is not None and node.link is not None:
            self._send_acquire(ticket, node, node.link, now_ns)
        else:
            self._park(ticket, now_ns)
        return ticket

    def release(self, ticket: Ticket, *, now_ns: int) -> None:
        """Begin to release a held ticket; `Resolve` follows once it is confirmed, or once its lease has ended anyway.

        Raises:
            LockLost: it was lost before; nothing is left to release.
            NotHeld: it was released before, or never held.
        """
        if ticket.state == HELD and deadline_of(ticket) <= now_ns:
            self._lose(ticket, "local-deadline", now_ns)
        if ticket.state != HELD:
            raise not_held(ticket)
        share = ticket.share
        assert share is not None
        share.leave(ticket)
        ticket.state = RELEASING
        self._begin_release(ticket, now_ns)

    def cancel(self, ticket: Ticket, *, now_ns: int) -> None:
        """The caller wants nothing of this ticket any more, whatever its state: leave nothing behind.

        No `Resolve` follows. Also ends the wait for a release (which goes on by itself).
        """
        if ticket.state in (PENDING, HELD):
            self._retract(ticket, now_ns)
        ticket.state = ENDED

    def describe(self, name: str, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask for one lock; the answer is a `LockInfo`."""
        return self._ask(Query(QueryKind.DESCRIBE, name, slot_of(name), now_ns, give_up_at_ns), now_ns)

    def list_locks(self, prefix: str, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask for all locks whose name starts with `prefix`; the answer is a list of `LockInfo`, by name."""
        request = Query(QueryKind.LIST, prefix, ANYWHERE, now_ns, give_up_at_ns, listing=ListProgress())
        return self._ask(request, now_ns)

    def watch(self, name: str, *, now_ns: int) -> Query:
        """Watch one lock: `Update` comes at once and after every change, until `abandon` or an error as `Answer`."""
        request = Query(QueryKind.WATCH, name, slot_of(name), now_ns, DISTANT_FUTURE_NS)
        return self._ask(request, now_ns)

    def break_lock(
        self, name: str, generation: int, *, force: bool, give_up_at_ns: int, now_ns: int
    ) -> Query:
        """End a holder's lease by its generation; the answer is a `Broken`."""
        request = Query(QueryKind.BREAK, name, slot_of(name), now_ns, give_up_at_ns, generation, force)
        return self._ask(request, now_ns)

    def get_state(self, *, give_up_at_ns: int, now_ns: int) -> Query:
        """Ask any server for the cluster state; the answer is a `StateIs`."""
        return self._ask(Query(QueryKind.STATE, "", ANYWHERE, now_ns, give_up_at_ns), now_ns)

    def drain(self, node: str, *, undo: bool = False, give_up_at_ns: int, now_ns: int) -> Query:
        """Move everything off a node (`Draining`), or with `undo` let it have slots again (`Undrained`)."""
        return self._ask(drain_request(node, undo, now_ns, give_up_at_ns), now_ns)

    def abandon(self, request: Query, *, now_ns: int) -> None:
        """The caller does not want the answer any more; ends a watch."""
        link = self._routing.links.get(request.link)
        if request.kind is QueryKind.WATCH and link is not None and not request.done:
            number = self._routing.number(now_ns)
            self._wake(self._routing.ask(link, number, None, Unwatch(number, request.request), now_ns))
            del link.acquires[request.request]
        self._finish(request)

    def close(self, *, now_ns: int) -> None:
        """End all sessions: give up everything, tell the nodes, fail what is open. See `is_closed` for the end."""
        if self._closed:
            return
        self._closed = True
        self._closing_until_ns = now_ns + CLOSE_NS
        routing = self._routing
        known = [
            (session, node.link)
            for node in routing.nodes.values()
            for session, share in node.shares.items()
            if node.link is not None and share.keepalive_at_ns != DISTANT_FUTURE_NS
        ]
        for item in list(self._open_items()):
            error = ClientClosed("the client was closed", name=item.name)
            if isinstance(item, Query):
                self._answer(item, None, error)
            elif item.state == PENDING:
                self._end_pending(item, error)
            elif item.state == HELD:
                assert item.share is not None
                item.share.leave(item)
                self._end_held(item, "session-ended")
            elif item.state == RELEASING:
                item.state = ENDED
                self._effects.append(Resolve(item, None))
        self._parked.clear()
        for session in self._sessions.values():
            for share in session.shares.values():
                share.keepalive_at_ns = DISTANT_FUTURE_NS
        for session, link in known:
            number = routing.number(now_ns)
            routing.ask(link, number, ClosingSession(session), CloseSession(number, session.id), now_ns)
        self._close_links_if_done(now_ns)

    # ------------------------------------------------------------------ what the shell reports

    def connected(self, link_id: int, *, now_ns: int) -> None:
        """The connection of a link is there."""
        link = self._routing.links.get(link_id)
        if link is not None:
            self._routing.greet(link, now_ns)

    def disconnected(
        self,
        link_id: int,
        *,
        now_ns: int,
        reason: str = "the connection was lost",
        error: LockringError | None = None,
    ) -> None:
        """A link could not be opened, or broke.

        Args:
            link_id: which.
            now_ns: the time.
            reason: a short text for people.
            error: what was wrong with the other side, if it is not to be expected to get better by itself.
        """
        link = self._routing.links.get(link_id)
        if link is not None:
            self._lose_link(link, error or Unavailable(reason), now_ns)

    def received(self, link_id: int, message: Message, *, now_ns: int) -> None:
        """A message came on a link. The clock is read after the network, and messages are given in their order."""
        link = self._routing.links.get(link_id)
        if link is None:
            return
        link.heard_at_ns = now_ns
        if link.doubt_at_ns != DISTANT_FUTURE_NS:
            self._routing.trust(link)
        kind = type(message)
        if kind is GrantReply:
            self._granted(link, message, now_ns)  # type: ignore[arg-type]
        elif kind is ReleaseReply:
            self._released(link, message, now_ns)  # type: ignore[arg-type]
        else:
            try:
                self._receive_other(link, message, now_ns)
            except LockringError as error:
                self._close_link(link, error, now_ns)
        if link.asked_at_ns:
            link.asked_at_ns = now_ns if link.requests else 0

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due. What has already arrived should have been given to `received` before."""
        routing = self._routing
        self._wake_ns = DISTANT_FUTURE_NS
        for session in self._sessions.values():
            for share in list(session.shares.values()):
                self._expire(share, now_ns)
        while (due := self._alarms.pop_due(now_ns)) is not None:
            self._look_at(due[1], now_ns)
        for node in list(routing.nodes.values()):
            for share in node.shares.values():
                if share.keepalive_at_ns <= now_ns:
                    self._keepalive(share, now_ns)
        self._check_links(now_ns)
        silent, wake = routing.silent(now_ns)
        self._wake(wake)
        for link in silent:
            state = "did not answer" if link.state == READY else "did not answer the greeting"
            self._close_link(link, Unavailable(f"{link.address} {state} in time"), now_ns)
        if self._closed:
            self._close_links_if_done(now_ns)
        else:
            self._wake(routing.race(now_ns))
            self._wake(routing.tend(now_ns, waiting=self._is_wanting()))
            self._wake(self._soonest())

    def next_deadline_ns(self) -> int | None:
        """When to call `on_timer` at the latest, None if nothing is going on; may be in the past."""
        return self._wake_ns if self._wake_ns != DISTANT_FUTURE_NS else None

    def take_effects(self, *, now_ns: int) -> list[ClientEffect]:
        """What is to be done since the last call, in order."""
        effects = self._effects[:]
        self._effects.clear()
        return effects

    # ------------------------------------------------------------------ what can be asked of it

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed and has no link left."""
        return self._closed and not self._routing.links

    @property
    def version(self) -> int:
        """Version of the newest routes, 0 before the first."""
        return self._routing.version

    def sessions(self) -> list[ClientSession]:
        """The sessions that were opened, one for each TTL."""
        return list(self._sessions.values())

    def status(self) -> ClientStatus:
        """How the client is."""
        return status_of(self)

    def check_invariants(self) -> None:
        """Assert what must always hold, in O(everything); for tests and simulations."""
        check_invariants(self)

    # ------------------------------------------------------------------ messages

    def _released(self, link: NodeLink, message: ReleaseReply, now_ns: int) -> None:
        """A release, a session's end or an unwatch is confirmed."""
        what = link.requests.pop(message.request, None)
        if isinstance(what, Ticket):
            self._let_go(what)
            if link.node is not None:
                self._lately_released.add(what, link.node, now_ns)
        elif isinstance(what, ClosingSession):
            self._close_links_if_done(now_ns)

    def _receive_other(self, link: NodeLink, message: Message, now_ns: int) -> None:
        if link.state != READY:
            if isinstance(message, Welcome):
                self._welcomed(link, message, now_ns)
            elif isinstance(message, Refusal):
                raise from_code(message.code, message.text)
            else:
                raise ProtocolError(f"{link.address} is no lockring server: it did not answer the greeting")
            return
        match message:
            case KeepaliveReply():
                self._kept(link, message, now_ns)
            case Routes():
                self._routed(message, now_ns)
            case LossNotice():
                self._told_lost(link, message, now_ns)
            case Refusal(request=0):
                raise ProtocolError(f"{link.address} could not read what it was sent: {message.text}")
            case Refusal():
                self._refused(link, message, now_ns)
            case WatchNotice():
                watch = link.acquires.get(message.request)
                if isinstance(watch, Query):
                    watch.attempts = 0
                    self._effects.append(update_of(watch, message))
            case View() | SettlementNotice() if message.request in link.acquires:
                self._grouped(link, message, now_ns)
            case QueueNotice():
                self._queued(link, message)
            case TroubleNotice():
                self._troubled(link, message, now_ns)
            case Welcome():
                raise ProtocolError(f"{link.address} answered the greeting twice")
            case _:
                self._answered(link, message, now_ns)

    def _answered(self, link: NodeLink, message: Any, now_ns: int) -> None:
        """A question was answered."""
        request = link.requests.pop(message.request, None)
        if not isinstance(request, Query) or type(message) is not ANSWERS.get(request.kind):
            return
        request.link = 0
        if request.listing is not None:
            assert isinstance(message, ListReply)
            request.listing.page(message)
            if request.listing.found_nothing_served():
                self._retry(request, Refusal(0, "unavailable", "no node serves any slot at present"), now_ns)
            else:
                self._dispatch(request, now_ns)
        else:
            self._answer(request, message, None)

    def _close_links_if_done(self, now_ns: int) -> None:
        """Of a closing client: close each link whose session ends are confirmed, and all once the time is over."""
        for link in list(self._routing.links.values()):
            if now_ns >= self._closing_until_ns or not any(
                isinstance(what, ClosingSession) for what in link.requests.values()
            ):
                link.acquires.clear()
                self._routing.drop(link, "the client was closed")
        if self._routing.links:
            self._wake(self._closing_until_ns)
        else:
            self._wake_ns = DISTANT_FUTURE_NS
