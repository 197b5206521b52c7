"""Rules between clients and nodes; see `mutants`."""

from __future__ import annotations

from typing import Any

from lockring.core import exchange
from lockring.core.exchange import Exchange
from lockring.core.holdings import NEVER_NS, Share
from lockring.core.lock_table import Holder, LockTable
from lockring.core.node import NodeCore
from lockring.core.node_keeping import Keeping
from lockring.core.node_locking import Locking
from lockring.core.node_service import ClientConnection, Parked, Service
from lockring.core.renewal import Renewal
from lockring.core.request_log import RequestLog
from lockring.core.routing import Routing
from lockring.errors import AcquireTimeout
from lockring.messages import Lost
from lockring.names import slot_of
from tests.sim.switches import Change, mutant, pair


@mutant
def session_only() -> list[Change]:
    """A keepalive is answered per session, not per lock: a node agrees whatever it has."""
    keepalive = Keeping.keepalive

    def changed(self: Keeping, connection: int, message: Any, now_ns: int) -> None:
        if not message.slots and not message.listed:
            session = self.touch(message, connection, now_ns)
            message.count, message.digest = session.count, session.digest
        keepalive(self, connection, message, now_ns)

    return [
        (Keeping, "keepalive", changed),
        (NodeCore, "may_serve_everything", lambda self, now_ns: True),
    ]


@mutant
def blind_to_another_cluster() -> list[Change]:
    """A client goes on believing in its locks where another cluster answers at all addresses that it knows."""
    is_replaced = Routing.is_replaced
    return [
        (Routing, "is_replaced", lambda self, has_any: not has_any and is_replaced(self, has_any=has_any)),
    ]


@mutant
def agreed_without_right() -> list[Change]:
    """A node whose digest agrees renews also in slots that it may not serve now."""
    return [(NodeCore, "may_serve_everything", lambda self, now_ns: True)]


@mutant
def grant_by_session() -> list[Change]:
    """A grant's deadline comes from the newest request of the client, not from the one it answers."""
    granted = Renewal._granted

    def changed(self: Renewal, link: Any, message: Any, now_ns: int) -> None:
        message.basis = self._routing.request
        granted(self, link, message, now_ns)

    return [(Renewal, "_granted", changed)]


@mutant
def client_from_response() -> list[Change]:
    """A client's deadlines count from the response, not from its request."""
    granted = Renewal._granted
    judge = Share.judge

    def late_granted(self: Renewal, link: Any, message: Any, now_ns: int) -> None:
        ticket = link.acquires.get(message.request)
        if ticket is not None:
            ticket.sent_at_ns = now_ns
        granted(self, link, message, now_ns)

    def late_judge(self: Share, request: int, sent_at_ns: int, kept: Any, now_ns: int) -> Any:
        return judge(self, request, now_ns, kept, now_ns)

    return [
        (Renewal, "_granted", late_granted),
        (Share, "judge", late_judge),
        (RequestLog, "sent_no_earlier_than", lambda self, request: self._log_times[-1]),
    ]


@mutant
def revive() -> list[Change]:
    """A late answer revives a lock whose deadline has passed."""
    expire = Renewal._expire
    kept = Renewal._kept

    def late_kept(self: Any, link: Any, message: Any, now_ns: int) -> None:
        self.__dict__["reviving"] = True
        kept(self, link, message, now_ns)
        self.__dict__["reviving"] = False

    def late_expire(self: Any, share: Any, now_ns: int) -> None:
        if not self.__dict__.get("reviving"):
            expire(self, share, now_ns)

    return [(Renewal, "_kept", late_kept), (Renewal, "_expire", late_expire)]


@mutant
def release_by_key() -> list[Change]:
    """A release names the lock and the session, not the acquisition."""
    release = Locking.release

    def changed(self: Locking, connection: int, message: Any, now_ns: int) -> None:
        for data in list(self._node.slots.values()):
            if data.reign is not None and message.name in data.table.locks:
                for holder in data.table.locks[message.name].holders:
                    if holder.session.id == message.session:
                        message.acquisition = holder.acquisition
        release(self, connection, message, now_ns)

    return [(Locking, "release", changed)]


@mutant
def list_of_one_share() -> list[Change]:
    """A client lists for a slot only what it expects at that node, not what it expects elsewhere by now."""

    def listed(self: Share, slots: list[int]) -> list[tuple[int, list[tuple[int, str]]]]:
        lists: dict[int, list[tuple[int, str]]] = {slot: [] for slot in slots}
        for ticket in self.tickets.values():
            if ticket.slot in lists:
                lists[ticket.slot].append((ticket.acquisition, ticket.name))
        return list(lists.items())

    return [(Share, "listed", listed)]


@mutant
def lost_from_anyone() -> list[Change]:
    """A client takes a loss from whatever node says so, and a node tells it without the right to."""

    def _told_lost(self: Renewal, link: Any, lost: Any, now_ns: int) -> None:
        session = self._session_of.get(lost.session)
        for share in session.shares.values() if session is not None else ():
            ticket = share.tickets.get(lost.acquisition)
            if ticket is not None:
                if ticket.generation:
                    self._lose(ticket, lost.reason, now_ns)
                return

    def tell_lost(self: Service, entry: Any, reason: str) -> None:
        if isinstance(entry, Holder) and entry.session.connection in self.connections:
            lost = Lost(entry.session.id, entry.acquisition, entry.lock.name, reason)
            self._node.send(entry.session.connection, lost)

    return [(Renewal, "_told_lost", _told_lost), (Service, "tell_lost", tell_lost)]


@mutant
def covered_by_all() -> list[Change]:
    """What a node says of a keepalive counts for acquisitions too that came to it only after that was sent."""
    enter = Share.enter

    def changed(self: Share, ticket: Any, after: int) -> None:
        enter(self, ticket, 0)

    return [(Share, "enter", changed)]


def _unlisted_stays() -> list[Change]:
    """A node keeps what a client's list shows as given up."""
    compare = Keeping._compare_list

    def changed(self: Keeping, session: Any, slot: int, listed: Any, through: int, now_ns: int) -> Any:
        return compare(self, session, slot, listed, 0, now_ns)

    return [(Keeping, "_compare_list", changed)]


@mutant
def released_once() -> list[Change]:
    """A client does not repeat its latest releases where a slot has a new primary."""
    return [(Exchange, "_release_again", lambda self, now_ns, *, lost=None: None)]


@pair(_unlisted_stays, released_once)
def unlisted_stays() -> None:
    """A node keeps what a client's list shows as given up, and no release is repeated at a new primary.

    Either suffices where the session has something else at that node; else it is the repetition that is needed.
    """


@mutant
def newest_first() -> list[Change]:
    """The last waiter is granted first."""

    def next_grantable(self: LockTable, lock: Any) -> Any:
        if lock.waiters and lock.admits(lock.waiters[-1].mode, lock.waiters[-1].permits):
            return lock.waiters[-1]
        return None

    return [(LockTable, "next_grantable", next_grantable)]


@mutant
def wait_begins_anew() -> list[Change]:
    """Who has waited elsewhere already stands at the end of the queue all the same."""
    enqueue = LockTable.enqueue

    def changed(self: LockTable, name: str, session: Any, acquisition: int, **rest: Any) -> Any:
        rest["since_ns"] = 0
        return enqueue(self, name, session, acquisition, **rest)

    return [
        (LockTable, "enqueue", changed),
        (Parked, "since_ns", lambda self: -self.arrived_ns),
    ]


@mutant
def readers_pass() -> list[Change]:
    """Who may share a lock with its holders passes those who wait for it alone."""
    acquire = Locking.acquire

    def changed(self: Locking, connection: int, message: Any, now_ns: int) -> None:
        data = self._node.slots.get(slot_of(message.name))
        lock = None if data is None else data.table.locks.get(message.name)
        if lock is None or not lock.holders or not lock.admits(message.mode, message.permits):
            acquire(self, connection, message, now_ns)
            return
        waiters, lock.waiters = lock.waiters, None
        acquire(self, connection, message, now_ns)
        lock.waiters = waiters

    return [(Locking, "acquire", changed)]


@mutant
def broken_renewed() -> list[Change]:
    """A lease that an operator ended is renewed by keepalives as before, though the node will end it."""

    def break_holder(self: LockTable, holder: Any) -> None:
        holder.broken = True
        self.broken[holder] = None

    def drop_holder(self: Locking, data: Any, holder: Any, now_ns: int, why: str = "") -> None:
        holder.broken = False
        drop(self, data, holder, now_ns, why)

    drop = Locking.drop_holder
    return [(LockTable, "break_holder", break_holder), (Locking, "drop_holder", drop_holder)]


@mutant
def broken_here_alone() -> list[Change]:
    """The copies do not hear of a lease that an operator ended: the next primary renews it as before."""
    apply = LockTable.apply

    def changed(self: LockTable, mutation: Any, now_ns: int) -> None:
        if type(mutation).__name__ != "Revoke":
            apply(self, mutation, now_ns)

    return [(LockTable, "apply", changed)]


@mutant
def parked_for_good() -> list[Change]:
    """What was parked until the slot can be served is not looked at again."""
    return [(Service, "retry_parked", lambda self, now_ns: None)]


def _one_session() -> list[Change]:
    """A client has one session for all its TTLs."""
    open_session = Exchange._open_session

    def changed(self: Any, ttl_ms: int) -> Any:
        for session in self._sessions.values():
            session.ttl_ms = ttl_ms
            self._sessions[ttl_ms] = session
            return session
        return open_session(self, ttl_ms)

    return [(Exchange, "_open_session", changed)]


def _ttl_may_change() -> list[Change]:
    """A node lets a session change its TTL, which its copies do not hear of."""
    touch = Keeping.touch

    def changed(self: Keeping, message: Any, connection: int, now_ns: int) -> Any:
        session = self._sessions.by_id.get(message.session)
        if session is not None:
            session.ttl_ms = message.ttl_ms
        return touch(self, message, connection, now_ns)

    return [(Keeping, "touch", changed)]


@pair(_one_session, _ttl_may_change)
def session_of_many_ttls() -> None:
    """A session has more than one TTL, of which its copies know one.

    Each alone suffices: clients open a session for each TTL, and a node refuses one that changes it.
    """


@mutant
def old_connections_speak() -> list[Change]:
    """A client's older connection is still listened to when a newer one has greeted the node."""

    def connected(self: Service, connection: int, client: str, number: int) -> None:
        self.connections[connection] = ClientConnection(client, number)
        self._connection_of[client] = connection

    def disconnected(self: Service, connection: int) -> None:
        client = self.connections.pop(connection, None)
        if client is not None:
            if self._connection_of.get(client.client) == connection:
                del self._connection_of[client.client]
            self.locking.withdraw_all(reversed(list(client.waiters)))
            self.watching.disconnected(connection, client.watches)

    return [(Service, "connected", connected), (Service, "disconnected", disconnected)]


@mutant
def idle_link_trusted() -> list[Change]:
    """A connection on which nothing has come for long is trusted like any other."""
    return [(Routing, "race", lambda self, now_ns: NEVER_NS)]


@mutant
def held_by_hearsay() -> list[Change]:
    """An acquire that has no answer when its time is over counts as one that others were in the way of."""

    def changed(routing: Any, item: Any, now_ns: int) -> Any:
        return AcquireTimeout("not granted in time", name=item.name)

    return [(exchange, "too_late", changed)]
