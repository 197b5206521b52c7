"""The answers of a coordinator that stands by: what it has read in the store, and which coordinator leads.

It decides nothing. Clients get routes and states from it as from the leader, up to a second old; a state that is older,
since the store is not reached, says so. Nodes are sent on to
the leader, whose address they need not have been started with: only it can give them leases. So are operators with
orders.
"""

from __future__ import annotations

from lockring.cluster_state import ClusterState
from lockring.core.access import Grantee, Newcomer
from lockring.core.coordinator.clients import Clients, welcome_to, why_not_greet
from lockring.core.coordinator.misplaced import why_not_first, why_not_taken
from lockring.core.coordinator.status import server_status_of, standby_status, state_reply
from lockring.core.coordinator.store_health import StoreReport, StoreTrouble
from lockring.core.effects import Admit, Close, Effect, Refuse, Send
from lockring.core.election import Election
from lockring.core.state_history import StateHistory
from lockring.errors import LockringError, NotCoordinator
from lockring.ids import NO_REQUEST, ConnectionId, RequestNumber, Version
from lockring.protocol import (
    ClientHello,
    Drain,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    Heartbeat,
    Join,
    Leave,
    Message,
    Probe,
    ProbeReply,
    Refusal,
    ServerStatus,
    SlotRequests,
    StatusReply,
    Undrain,
)


class StandbyDesk:
    """Serves the clients of a coordinator that stands by. Not safe for use by several tasks.

    Args:
        address: HOST:PORT of this coordinator.
        store: the store, for people.
        effects: the machine's effects, to which answers are appended.
        now_ns: the monotonic clock, in nanoseconds.

    Attributes:
        note: a sentence on why this coordinator decides nothing.
        election: the coordinators, as far as they are known.
        trouble: the trouble of a store that does not answer, None if it does.
    """

    def __init__(self, address: str, store: str, effects: list[Effect], *, now_ns: int) -> None:
        self.note = "the coordinator is still reading its store"
        self.election = Election(None)
        self.trouble: StoreTrouble | None = None
        self._address = address
        self._store = store
        self._effects = effects
        self._clients = Clients(now_ns=now_ns)
        self._history = StateHistory()
        self._current_at_ns = now_ns

    @property
    def version(self) -> Version:
        """The version of the newest state that was read, 0 before the first."""
        return self._history.state.version

    def learn(self, state: ClusterState | None, *, at_ns: int) -> None:
        """Take a state that was read in the store, and send clients their new routes; older ones are ignored.

        Args:
            state: what the store had, None for nothing.
            at_ns: when it had that, by the monotonic clock.
        """
        self._current_at_ns = at_ns
        if state is None or state.version <= self.version:
            return
        self._history.start_at(state)
        for client in self._clients.pop_misled(state.cluster):
            self._effects.append(Close(client, "the cluster has another id than this client was given"))
        self._effects += self._clients.publish(state)

    def connected(self, connection: ConnectionId, newcomer: Newcomer) -> None:
        """Note a connection whose first message is still to come."""
        self._clients.await_hello(connection, newcomer)

    def receive(self, sender: ConnectionId, message: Message, *, now_ns: int) -> None:
        """Answer a message, or refuse it and end its connection; what arrives behind that is ignored."""
        if sender in self._clients:
            self._answer(sender, message, now_ns)
        elif self._clients.awaits_hello(sender):
            self._take_first(sender, message, self._clients.take_stranger(sender))

    def _take_first(self, sender: ConnectionId, message: Message, newcomer: Newcomer) -> None:
        if isinstance(message, ClientHello):
            self._greet(sender, message, newcomer.access)
        elif isinstance(message, Join | Heartbeat | SlotRequests | Leave):
            self._effects.append(Refuse(sender, self._not_leading(NO_REQUEST)))
        else:
            self._refuse(sender, why_not_first(message, self._address))

    def drop(self, connection: ConnectionId) -> None:
        """Forget a connection that has ended."""
        self._clients.drop(connection)

    def _greet(self, sender: ConnectionId, hello: ClientHello, access: Grantee | None) -> None:
        error = why_not_greet(hello, self._history.state.cluster)
        if error is not None:
            self._refuse(sender, error)
            return
        leader = self.election.leader
        address = self._address if leader is None else leader.address
        welcome = welcome_to(self._history.state, address, has_others=True)
        self._effects.append(Admit(sender, is_member=False, welcome=welcome))
        follows = self._clients.admit(sender, hello, access, "", left_ms=0)
        self._effects += [Send(sender, each) for each in follows]

    def _answer(self, sender: ConnectionId, message: Message, now_ns: int) -> None:
        if self._clients.refuse_if_denied(sender, message, self._effects, now_ns=now_ns):
            return
        match message:
            case GetState():
                state, age_ns = self._history.whole().state, now_ns - self._current_at_ns
                reply = state_reply(message.request, state, self.note, age_ns=age_ns)
                self._effects.append(Send(sender, reply))
            case GetRoutes():
                self._effects.append(Send(sender, self._clients.whole_routes()))
            case GetStatus():
                self._effects.append(Send(sender, StatusReply(message.request, self._status(now_ns))))
            case Probe():
                self._effects.append(Send(sender, ProbeReply(message.request)))
            case Drain() | Undrain() | GetEvents():
                self._effects.append(Send(sender, self._not_leading(message.request)))
            case _:
                self._clients.drop(sender)
                self._refuse(sender, why_not_taken(message, self._address, "a client"))

    def _status(self, now_ns: int) -> ServerStatus:
        status = standby_status(self.note, self.version)
        return server_status_of(status, StoreReport(self._store, self.election, self.trouble), now_ns=now_ns)

    def _not_leading(self, request: RequestNumber) -> Refusal:
        leader = "" if self.election.leader is None else self.election.leader.address
        text = f"{self._address} does not lead: {self.note}"
        return Refusal(request, NotCoordinator.code, text, leader=leader)

    def _refuse(self, sender: ConnectionId, error: LockringError) -> None:
        self._effects.append(Refuse(sender, Refusal(NO_REQUEST, error.code, str(error))))
