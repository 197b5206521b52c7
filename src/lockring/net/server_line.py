"""Asks one server several questions, over a connection that stays and is opened when it is needed."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple, TypeVar

import msgspec

from lockring.errors import LockringError
from lockring.ids import FIRST_SLOT, NO_CLUSTER, NO_VERSION, ClusterId, LockName, NodeId, RequestNumber
from lockring.net.oneshot import ByteStream, Conversation, Dial, dial_plain, hello_of, no_answer
from lockring.protocol import (
    Describe,
    DescribeReply,
    EventsReply,
    FindSimilar,
    GetEvents,
    GetRoutes,
    Message,
    Routes,
    SimilarReply,
    Welcome,
)

_M = TypeVar("_M", bound=Message)


class Roll(NamedTuple):
    """The servers of a cluster, as one of them names them.

    Attributes:
        cluster: the cluster's id.
        coordinator: HOST:PORT of the coordinator, "" if it is unknown.
        members: the id and HOST:PORT of each node, in the order of their ids.
    """

    cluster: ClusterId
    coordinator: str
    members: tuple[tuple[NodeId, str], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """HOST:PORT of each node."""
        return tuple(address for _, address in self.members)

    def address_of(self, node: NodeId) -> str:
        """Return HOST:PORT of a node, "" if it is not a member."""
        return next((address for each, address in self.members if each == node), "")

    @property
    def all(self) -> tuple[str, ...]:
        """Every server once, the coordinator first."""
        servers = ((self.coordinator,) if self.coordinator else ()) + self.nodes
        return tuple(dict.fromkeys(servers))


class AskersRights(NamedTuple):
    """The rights of an asker to one lock.

    Attributes:
        verbs: what it may do: "read", "acquire", "watch", "break", "admin"; None if the node does not say.
        identity: the asker, as the node knows it; "" where identities are not checked.
    """

    verbs: tuple[str, ...] | None = None
    identity: str = ""


def ask_roll(address: str, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = "") -> Roll:
    """Ask a node or a coordinator which servers the cluster has. Blocks; may be called from any thread.

    It needs an identity with a role, and no further right.

    Args:
        address: HOST:PORT of the server.
        timeout_s: how long it may take to answer.
        dial: opens the connection.
        credential: a token or a JWT to show to it, "" for none.

    Raises:
        Unavailable: no server answers there in time.
        LockringError: the server refuses.
    """
    line = ServerLine(address, timeout_s=timeout_s, dial=dial, credential=credential)
    try:
        return line.roll()
    finally:
        line.close()


class ServerLine:
    """A connection to one server, opened when it is needed. Not safe for use by several threads.

    Args:
        address: HOST:PORT of the server.
        timeout_s: how long each question may take.
        dial: opens the connection.
        credential: a token or a JWT to show to it, "" for none.
        cluster: the cluster that must answer, `NO_CLUSTER` for any.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float,
        dial: Dial = dial_plain,
        credential: str = "",
        cluster: ClusterId = NO_CLUSTER,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._dial = dial
        self._credential = credential
        self._cluster = cluster
        self._stream: ByteStream | None = None
        self._talk: Conversation | None = None
        self._welcome: Welcome | None = None
        self._request = 0

    def roll(self) -> Roll:
        """Ask which servers the cluster has. Raises as `ask_roll`."""
        self._request += 1
        routes = self._ask(GetRoutes(NO_VERSION, RequestNumber(self._request)), Routes)
        assert self._welcome is not None
        members = tuple((node, address) for node, _, address in sorted(routes.members))
        return Roll(self._welcome.cluster, routes.coordinator or self._welcome.coordinator, members)

    def events(self, question: GetEvents) -> EventsReply:
        """Ask for events; the question's own number does not matter.

        Raises:
            Unavailable: the server does not answer in time.
            NotCoordinator: it is a coordinator that does not lead.
            ProtocolError: it is of a version that remembers no events, or not a server of lockring.
            LockringError: the server refuses.
        """
        self._request += 1
        asked = msgspec.structs.replace(question, request=RequestNumber(self._request))
        return self._ask(asked, EventsReply)

    def rights(self, name: LockName) -> AskersRights:
        """Ask the node that has a lock for the asker's rights to it.

        Raises:
            Moved: another node has the lock.
            LockringError: as for `events`.
        """
        self._request += 1
        question = Describe(RequestNumber(self._request), name, asks_rights=True)
        found = self._ask(question, DescribeReply)
        return AskersRights(None if found.rights is None else tuple(found.rights), found.identity)

    def similar(self, name: LockName, *, pages_max: int) -> tuple[list[str], bool]:
        """Ask a node for locks in use whose names are like another one.

        Args:
            name: the other one.
            pages_max: how many answers to ask for at most.

        Returns:
            The names, and whether the node has looked at all of its locks.

        Raises:
            LockringError: as for `events`.
        """
        found: list[str] = []
        slot, is_whole = FIRST_SLOT, True
        for _ in range(pages_max):
            self._request += 1
            page = self._ask(FindSimilar(RequestNumber(self._request), name, slot), SimilarReply)
            found += page.names
            is_whole = is_whole and not page.is_partial
            if page.next_slot < 0:
                return found, is_whole
            slot = page.next_slot
        return found, False

    def close(self) -> None:
        """End the connection, if there is one. The next question opens another."""
        stream, self._stream, self._talk = self._stream, None, None
        if stream is not None:
            with suppress(OSError):
                stream.close()

    def _ask(self, question: Message, answer: type[_M]) -> _M:
        try:
            found = self._connected()(question, answer)
        except LockringError:
            self.close()
            raise
        except OSError as error:
            talk = self._talk
            self.close()
            raise no_answer(error, self.address, self._timeout_s, talk) from error
        assert isinstance(found, answer)
        return found

    def _connected(self) -> Conversation:
        if self._talk is None:
            self._stream = self._dial(self.address, self._timeout_s)
            self._talk = Conversation(self._stream, self.address, self._timeout_s)
            welcome = self._talk(hello_of(self._credential, self._cluster), Welcome)
            assert isinstance(welcome, Welcome)
            self._welcome = welcome
        self._talk.allow(self._timeout_s)
        return self._talk
