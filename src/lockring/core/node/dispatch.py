"""How a client's request finds its handler.

A table says for each kind of request whether it is about a slot, and which right the node needs to answer it. Slot and
right are looked up here, once; a request about a slot that is not served here now is parked or sent elsewhere, and a
handler never sees it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from lockring.core.access import NEVER_THROTTLED, NOTHING, REQUIREMENTS, Condition, Requirement, Verb
from lockring.core.node.access_guard import AccessGuard
from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.counters import HandledRequests
from lockring.core.node.locks import NO_DEADLINE
from lockring.core.node.parking import PARKED_MAX, PARKED_NS, ParkedRequest, ParkedRequests
from lockring.core.node.sessions import Sessions
from lockring.core.node.trouble import Troubles
from lockring.core.refusals import refusal_of
from lockring.errors import LockringError
from lockring.ids import NO_REQUEST, ConnectionId
from lockring.protocol import Message
from lockring.slots import checked_slot_of


class Needs(enum.Enum):
    """The right that a node needs to answer a request."""

    NO_SLOT = enum.auto()
    """The request is not about one slot: the handler looks at rights itself, if it needs any."""
    REIGN = enum.auto()
    """The slot's reign and the coordinator's lease: the answer leaves only after another look at the copies' leases."""
    RIGHT_TO_SERVE = enum.auto()
    """All that `Rights.may_serve` asks for: the answer is a statement about the lock."""


class RequestHandler:
    """How one kind of request is handled.

    Args:
        handle: see below.
        needs: see below.
        check: see below.

    Attributes:
        handle: called with connection, message and time, or with connection, message, slot and time.
        needs: what the node must have.
        check: looks at the message before anything else, and raises a `LockringError` if it cannot be right.
        requirement: the right that its sender needs, by the table in `core.access.requirements`.
        verb: that right, if it is one for the name that the message names; None otherwise.
        is_owned: whether the message names a session, which must be the sender's own.
        is_rare: whether there is another condition, which is looked at by a call.
        is_throttled: whether it counts among the requests per second of its sender; see `NEVER_THROTTLED`.
        handled: how many were carried out.
    """

    # Not a named tuple, whose attributes take longer to read: a lone request reads some of them.
    __slots__ = (
        "check",
        "handle",
        "handled",
        "is_owned",
        "is_rare",
        "is_throttled",
        "needs",
        "requirement",
        "verb",
    )

    def __init__(
        self,
        handle: Callable[..., None],
        needs: Needs = Needs.NO_SLOT,
        check: Callable[[Any], None] | None = None,
    ) -> None:
        self.handle = handle
        self.needs = needs
        self.check = check
        self.requirement = Requirement(Condition.FREE)
        self.verb: Verb | None = None
        self.is_owned = False
        self.is_rare = False
        self.is_throttled = False
        self.handled = HandledRequests("")

    def serve(self, kind: type[Message]) -> None:
        """Take up what the tables of `core.access.requirements` say of this kind of request."""
        self.requirement = requirement = REQUIREMENTS[kind]
        condition, verb = requirement
        names_lock = condition in (Condition.NAME, Condition.OWNER_AND_NAME)
        self.verb = verb if names_lock else None
        self.is_owned = condition in (Condition.OWNER, Condition.OWNER_AND_NAME)
        self.is_rare = not names_lock and not self.is_owned
        self.is_throttled = kind not in NEVER_THROTTLED
        self.handled = HandledRequests(kind.__name__)


_NO_SLOT = Needs.NO_SLOT
_REIGN = Needs.REIGN


class ClientRequests:
    """Requests of clients: each is handled, parked or refused.

    Attributes:
        handlers: by the kind of request.
    """

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        troubles: Troubles,
        handlers: Mapping[type[Message], RequestHandler],
        *,
        guard: AccessGuard,
        sessions: Sessions,
        take_other: Callable[[ConnectionId, Message], None],
    ) -> None:
        """Make the dispatcher of one node.

        Args:
            context: the node's.
            clients: its clients.
            troubles: why it cannot serve.
            handlers: by the kind of request; each kind is in the table of requirements.
            guard: refuses what clients may not do.
            sessions: of the node, each with the identity to which it belongs.
            take_other: takes anything else: an announcement of a server, or a mistake.
        """
        self._context = context
        self._clients = clients
        self._troubles = troubles
        self._parked = ParkedRequests()
        self._guard = guard
        self._sessions = sessions
        for kind, handler in handlers.items():
            handler.serve(kind)
        self.handlers = handlers
        self._counters = context.outbox.counters
        self._counters.handled = [handler.handled for handler in handlers.values()]
        self._take_other = take_other

    def receive(
        self, connection: ConnectionId, message: Any, now_ns: int, parked: ParkedRequest | None = None
    ) -> None:
        """Handle a message of a client; one that no client may send ends its connection.

        Args:
            connection: where it came.
            message: the request.
            now_ns: the time.
            parked: the request as it was parked, if it is tried again.
        """
        client = self._clients.by_connection.get(connection)
        if client is None:
            return
        handler = self.handlers.get(type(message))
        if handler is None:
            self._take_other(connection, message)
            return
        access = client.access
        if access is not None:
            # Written out: a request about one lock calls nothing for its rights but the look-up.
            guard, verb = self._guard, handler.verb
            if handler.is_throttled and access.quota.limits.requests_per_s is not None:
                if access.is_enforced and parked is None:
                    if guard.throttles(connection, access, message, now_ns):
                        return
            if verb is not None:
                if not access.permissions.tables[verb].allows(message.name):
                    if guard.refuses_name(connection, access, message, verb):
                        return
            elif handler.is_rare or access.permissions is NOTHING:
                if guard.refuses(connection, access, message, handler.requirement):
                    return
            if handler.is_owned:
                session = self._sessions.by_id.get(message.session)
                if session is not None:
                    if session.identity != access.key:
                        message = guard.in_session(connection, access, message, session)
                        if message is None:
                            return
                    if (
                        session.totals.quota is None
                        and access.is_enforced
                        and session.identity == access.key
                        and session.deadline_ns != NO_DEADLINE
                    ):
                        guard.adopt(session, access)
        try:
            needs = handler.needs
            if needs is _NO_SLOT:
                handler.handle(connection, message, now_ns)
                handler.handled.count += 1
                return
            number = checked_slot_of(message.name)
            if handler.check is not None:
                handler.check(message)
            rights = self._context.rights
            slot = self._context.slots.get(number)
            # The weaker test is written out: every acquire makes it, and calls nothing for it.
            if needs is _REIGN:
                is_served = (
                    slot is not None and slot.reign is not None and rights.coordinator_lease.until_ns > now_ns
                )
            else:
                is_served = rights.may_serve(number, now_ns=now_ns)
            if is_served:
                handler.handle(connection, message, slot, now_ns)
                handler.handled.count += 1
            else:
                self._park_or_redirect(
                    parked or ParkedRequest(connection, message, number, access, arrived_ns=now_ns)
                )
        except LockringError as error:
            request = getattr(message, "request", NO_REQUEST)
            name = getattr(message, "name", "")
            self._counters.refuse_by(type(message).__name__, error)
            self._context.outbox.send(connection, refusal_of(error, request, name=name))

    def retry_parked(self, now_ns: int) -> None:
        """Handle the parked requests that can be answered now, those that have waited longest first."""
        if not self._parked.by_slot:
            return
        context = self._context
        for number in list(self._parked.by_slot):
            state = context.state.slots[number]
            slot = context.slots.get(number)
            is_served = (
                slot is not None
                and slot.reign is not None
                and context.rights.coordinator_lease_left_ns(now_ns) > 0
            )
            has_moved = state.primary is not None and state.primary != context.replica
            for parked in self._parked.take(number):
                client = self._clients.by_connection.get(parked.connection)
                if client is None:
                    continue
                if now_ns - parked.arrived_ns >= PARKED_NS:
                    self._troubles.look(context.now_ns)
                    text = self._troubles.why_not_served(number)
                    self._clients.refuse(
                        parked.connection, parked.message, "unavailable", text, is_handled=False
                    )
                elif is_served or (has_moved and parked.message.version <= context.state.version):
                    # Its connection may forward for another identity meanwhile.
                    present, client.access = client.access, parked.access
                    self.receive(parked.connection, parked.message_at(now_ns), now_ns, parked)
                    client.access = present
                else:
                    self._parked.add(parked)

    def _park_or_redirect(self, request: ParkedRequest) -> None:
        state = self._context.state
        primary = state.slots[request.number].primary
        message = request.message
        if (
            primary != self._context.replica
            and primary is not None
            and message.version
            <= state.version  # a client that knows more is about to be right: wait for the state
        ):
            self._clients.refuse_moved(
                request.connection, message.request, message.name, type(message).__name__
            )
        elif self._parked.is_full:
            text = f"{PARKED_MAX} requests wait at this node already"
            self._clients.refuse(request.connection, message, "overloaded", text, is_handled=False)
        else:
            self._parked.add(request)
