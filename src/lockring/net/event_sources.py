"""Asks servers for the events that they remember: once, or again and again.

A question to several servers is put to all of them at the same time. A server that does not answer is left out, with
the reason; it is dialed again by the next question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from lockring.errors import LockringError, NotCoordinator, ProtocolError
from lockring.net.server_line import Roll, ServerLine
from lockring.protocol import EventsReply, GetEvents

_ASKED_AT_ONCE_MAX: Final = 32


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

    def __init__(self, line_to: Callable[[str], ServerLine], roll: Roll) -> None:
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

    def _answer_of(self, line: ServerLine, question: GetEvents) -> EventsReply | LockringError:
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
