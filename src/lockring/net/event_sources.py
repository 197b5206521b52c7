"""Asks servers for the events that they remember: once, or again and again over connections that stay.

A question to several servers is put to all of them at the same time. A server that does not answer is left out, with
the reason; it is dialed again by the next question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from lockring.errors import LockringError, NotCoordinator, ProtocolError, Unavailable
from lockring.ids import NO_CLUSTER, NO_VERSION, ClusterId, RequestNumber
from lockring.net.oneshot import ByteStream, Conversation, Dial, dial_plain, hello_of
from lockring.protocol import EventsReply, GetEvents, GetRoutes, Routes, Welcome
from lockring.system_errors import reason_of

_ASKED_AT_ONCE_MAX: Final = 32


class Roll(NamedTuple):
    """The servers of a cluster, as one of them names them.

    Attributes:
        cluster: the cluster's id.
        coordinator: HOST:PORT of the coordinator, "" if it is unknown.
        nodes: HOST:PORT of each node, in the order of their ids.
    """

    cluster: ClusterId
    coordinator: str
    nodes: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every server once, the coordinator first."""
        servers = ((self.coordinator,) if self.coordinator else ()) + self.nodes
        return tuple(dict.fromkeys(servers))


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
    line = EventLine(address, timeout_s=timeout_s, dial=dial, credential=credential)
    try:
        return line.roll()
    finally:
        line.close()


class EventLine:
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
        routes = self._ask(GetRoutes(NO_VERSION), Routes)
        assert isinstance(routes, Routes)
        assert self._welcome is not None
        nodes = tuple(address for _, _, address in sorted(routes.members))
        return Roll(self._welcome.cluster, routes.coordinator or self._welcome.coordinator, nodes)

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
        answer = self._ask(asked, EventsReply)
        assert isinstance(answer, EventsReply)
        return answer

    def close(self) -> None:
        """End the connection, if there is one. The next question opens another."""
        stream, self._stream, self._talk = self._stream, None, None
        if stream is not None:
            with suppress(OSError):
                stream.close()

    def _ask(
        self, question: GetRoutes | GetEvents, answer: type[Routes | EventsReply]
    ) -> Routes | EventsReply:
        try:
            found = self._connected()(question, answer)
        except LockringError:
            self.close()
            raise
        except TimeoutError as error:
            self.close()
            raise Unavailable(
                f"{self.address} did not answer within {self._timeout_s:g} s", reason="silent"
            ) from error
        except OSError as error:
            self.close()
            text = f"{self.address} cannot be reached: {reason_of(error)}"
            raise Unavailable(text, reason="unreachable") from error
        assert isinstance(found, (Routes, EventsReply))
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


class ServersAnswer(NamedTuple):
    """The answers of several servers to one question.

    Attributes:
        replies: by address, the coordinator's first.
        troubles: by address, why a server has not answered.
    """

    replies: dict[str, EventsReply]
    troubles: dict[str, LockringError]


class EventSources:
    """The events of several servers. Not safe for use by several threads.

    Args:
        line_to: makes a connection to an address.
        roll: the servers.
    """

    def __init__(self, line_to: Callable[[str], EventLine], roll: Roll) -> None:
        self._line_to = line_to
        self._lines = [line_to(address) for address in roll.all]
        self._pool = ThreadPoolExecutor(_ASKED_AT_ONCE_MAX)
        # By server: the memory that answered last, and its newest event.
        self._seen: dict[str, tuple[str, int]] = {}

    def ask(self, question: GetEvents) -> ServersAnswer:
        """Ask all servers for their events; later ones are then asked for by `ask_newer`."""
        return self._gather([question] * len(self._lines))

    def ask_newer(self, question: GetEvents) -> ServersAnswer:
        """Ask all servers for the events since the last answer of each.

        A server that has begun another life since is asked from the start of that.
        """
        questions = [
            msgspec.structs.replace(question, after=self._seen.get(line.address, ("", 0))[1])
            for line in self._lines
        ]
        return self._gather(questions)

    def look_for_servers(self) -> None:
        """Ask a server that answers which ones there are now: some may have joined, left, or begun to lead."""
        for line in self._lines:
            with suppress(LockringError):
                servers = line.roll().all
                break
        else:
            return
        lines = {each.address: each for each in self._lines}
        for gone in lines.keys() - set(servers):
            lines[gone].close()
            self._seen.pop(gone, None)
        self._lines = [lines.get(each) or self._line_to(each) for each in servers]

    def close(self) -> None:
        """End all connections."""
        self._pool.shutdown()
        for line in self._lines:
            line.close()

    def _gather(self, questions: Sequence[GetEvents]) -> ServersAnswer:
        answer = ServersAnswer({}, {})
        for line, found in zip(
            self._lines, self._pool.map(self._answer_of, self._lines, questions), strict=True
        ):
            if isinstance(found, EventsReply):
                answer.replies[line.address] = found
                self._seen[line.address] = (found.origin, found.last)
            else:
                answer.troubles[line.address] = found
        return answer

    def _answer_of(self, line: EventLine, question: GetEvents) -> EventsReply | LockringError:
        try:
            found = line.events(question)
            origin, _ = self._seen.get(line.address, (found.origin, 0))
            if found.origin != origin:
                found = line.events(msgspec.structs.replace(question, after=0))
            return found
        except LockringError as error:
            return error


def is_older_version(error: LockringError) -> bool:
    """Return whether a server has not understood a question for events, as those of earlier versions do not."""
    return isinstance(error, ProtocolError) and not isinstance(error, NotCoordinator)
