"""Keeps one outgoing connection up: dials, greets, passes messages on, and dials again after a loss.

A coordinator that does not lead names the one that does. That one is tried behind the addresses that the caller knows,
round after round, until another one is named: it may be none of them.

A name may stand for several servers. Each attempt begins with another of its addresses than the one before: a server
that stands still accepts connections, and would be tried forever.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol, cast

import msgspec

from lockring.addresses import split_address
from lockring.core.refusals import error_of
from lockring.errors import LockringError, NotCoordinator, ProtocolError, Unavailable
from lockring.net.accepted import MEMBER_UNREAD_BYTES_MAX
from lockring.net.connection import FramedConnection, Outbox
from lockring.net.openers import Opener, open_plain
from lockring.protocol import FRAME_BYTES_MAX, PROTOCOL, Message, Refusal, Welcome
from lockring.system_errors import connect_failure

CONNECT_S_MAX: Final = 2.0
"""How long the other machine may take to accept a connection."""

ANSWER_S_MAX: Final = 5.0
"""How long the server may take to answer the first message."""


class Caller(Protocol):
    """The user of a dialer. All methods are called in the event loop, the last three in this order."""

    def hello(self) -> Message:
        """Return the first message of the next connection."""

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        """Handle a failed attempt: unreachable (`Unavailable`), refused, or another protocol.

        The next attempt follows after a pause, unless this method closes the dialer.
        """

    def opened(self, address: str, welcome: Welcome) -> None:
        """Handle the welcome on a new connection, `dialer.connection`. May raise a `LockringError` to end it."""

    def arrived(self, messages: list[Message]) -> None:
        """Handle messages. May raise a `LockringError` to end the connection."""

    def lost(self, reason: str) -> None:
        """Handle the end of an opened connection."""


class Dialer:
    """One outgoing connection, dialed again for as long as it is wanted. Not thread-safe.

    Args:
        caller: the user of the connection.
        addresses: returns HOST:PORT of the servers to try in turn; called before each round of attempts.
        accepted: the messages that the server may send.
        outbox: holds writes until the flush.
        pause_s_min: pause after the first failure; it doubles with each further one …
        pause_s_max: … up to this. A connection that ends sooner than this counts as a failure.
        opener: opens the connection.
    """

    def __init__(
        self,
        caller: Caller,
        addresses: Callable[[], Sequence[str]],
        accepted: Any,
        outbox: Outbox,
        *,
        pause_s_min: float,
        pause_s_max: float,
        opener: Opener = open_plain,
    ) -> None:
        self.caller = caller
        self.connection: _DialedConnection | None = None
        """The connection while it is up and welcomed, else None."""
        self._addresses = addresses
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(accepted)
        self._outbox = outbox
        self._pause_s_min = pause_s_min
        self._pause_s_max = pause_s_max
        self._open = opener
        self._task: asyncio.Task[None] | None = None
        self._attempt: _DialedConnection | None = None
        self._named = ""
        self._attempts = 0
        self._closed = False

    def start(self) -> None:
        """Start dialing."""
        assert self._task is None
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_report_end)

    def close(self, reason: str) -> None:
        """Stop dialing, and end the connection once its pending writes are delivered. Does not call `caller.lost`."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self.connection = None
        if self._attempt is not None:
            self._attempt.close(reason)

    def hang_up(self, reason: str) -> None:
        """End the connection at once, and dial again."""
        if self._attempt is not None:
            self._attempt.abort(reason)

    async def _run(self) -> None:
        pause_s = self._pause_s_min
        loop = asyncio.get_running_loop()
        while True:
            known = self._addresses()
            for address in self._with_the_named(known):
                began_s = loop.time()
                if await self._try(address) and loop.time() - began_s >= self._pause_s_max:
                    pause_s = self._pause_s_min
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(pause_s * 2, self._pause_s_max)

    def _with_the_named(self, known: Sequence[str]) -> Iterator[str]:
        """Yield the addresses of a round; the last one may have been named in the course of it."""
        yield from known
        if self._named and self._named not in known:
            yield self._named

    async def _try(self, address: str) -> bool:
        """Run one connection from dialing to its end, and return whether it was welcomed."""
        outgoing = _DialedConnection(self, self._decoder, self._outbox, address)
        try:
            host, port = split_address(address)
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._connect(outgoing, host, port)
        except Exception as error:  # noqa: BLE001 - an impossible name, no thread to look it up, no memory: try again
            reason = connect_failure(error, CONNECT_S_MAX)
            self.caller.connect_failed(address, Unavailable(f"{address} cannot be reached: {reason}"), 0)
            return False
        self._attempt = outgoing
        try:
            outgoing.send(self.caller.hello())
            outgoing.write_out()
            refusal = await outgoing.answered
            if refusal is not None:
                if isinstance(refusal[0], NotCoordinator) and refusal[0].leader:
                    self._named = refusal[0].leader
                self.caller.connect_failed(address, *refusal)
                return False
            await outgoing.ended
            return True
        finally:
            self._attempt = None
            if not self._closed:
                outgoing.abort("it was hung up")

    async def _connect(self, outgoing: _DialedConnection, host: str, port: int) -> None:
        """Open a connection to the first of a name's addresses that accepts one; raise the last one's error."""
        addresses = await _addresses_of(host, port)
        first = self._attempts % len(addresses)
        self._attempts += 1
        for number, where in enumerate((*addresses[first:], *addresses[:first]), 1):
            try:
                await self._open(lambda: cast(asyncio.Protocol, outgoing), where, port)
                return
            except OSError:
                if number == len(addresses):
                    raise

    # ----------------------------------------------------------------------- for _DialedConnection

    def up(self, outgoing: _DialedConnection, welcome: Welcome) -> None:
        """Handle the welcome on a connection."""
        self.connection = outgoing
        self.caller.opened(outgoing.address, welcome)

    def down(self, outgoing: _DialedConnection, reason: str) -> None:
        """Handle the end of a connection."""
        if self.connection is outgoing:
            self.connection = None
            self.caller.lost(reason)


async def _addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses that a name stands for, in their order; an address stands for itself."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return [host]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class _DialedConnection(FramedConnection):
    """One connection of a dialer."""

    def __init__(
        self, dialer: Dialer, decoder: msgspec.msgpack.Decoder[Any], outbox: Outbox, address: str
    ) -> None:
        super().__init__(
            outbox,
            decoder,
            frame_bytes_max=FRAME_BYTES_MAX,
            write_bytes_max=MEMBER_UNREAD_BYTES_MAX,
        )
        loop = asyncio.get_running_loop()
        self.address = address
        self.answered: asyncio.Future[tuple[LockringError, int] | None] = loop.create_future()
        """Resolved when the server has answered: with None if it welcomed, else with the error and its hint."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self._dialer = dialer
        self._deadline: asyncio.TimerHandle | None = None

    def on_open(self) -> None:
        """Start the deadline of the answer."""
        self._deadline = asyncio.get_running_loop().call_later(ANSWER_S_MAX, self._too_slow)

    def on_messages(self, messages: list[Message]) -> None:
        """Take the first message as the answer to the hello, and pass on those after it."""
        try:
            if not self.answered.done():
                self._take_answer(messages.pop(0))
                if not messages or not self.is_open:
                    return
            self._dialer.caller.arrived(messages)
        except LockringError as error:
            self.abort(str(error))

    def _take_answer(self, answer: Message) -> None:
        self._cancel_deadline()
        if isinstance(answer, Refusal):
            error = error_of(answer)
            self._fail(error, answer.hint)
        elif not isinstance(answer, Welcome):
            self.on_garbage(ProtocolError(f"it answered a hello with {type(answer).__name__}"))
        elif answer.protocol != PROTOCOL:
            self.on_garbage(ProtocolError(f"it speaks protocol version {answer.protocol}"))
        else:
            self.answered.set_result(None)
            self._dialer.up(self, answer)

    def on_garbage(self, error: ProtocolError) -> None:
        """Fail: the other side is not a lockring server, or a broken one."""
        self._fail(ProtocolError(f"{self.address} is not a lockring server of this version: {error}"), 0)

    def on_end(self, reason: str) -> None:
        """Let the dialer go on."""
        self._cancel_deadline()
        if not self.answered.done():
            self.answered.set_result((Unavailable(f"{self.address} ended the connection: {reason}"), 0))
        if not self.ended.done():
            self.ended.set_result(None)
        self._dialer.down(self, reason)

    def _too_slow(self) -> None:
        self._fail(Unavailable(f"{self.address} did not answer within {ANSWER_S_MAX:g} s"), 0)

    def _fail(self, error: LockringError, hint: int) -> None:
        if not self.answered.done():
            self.answered.set_result((error, hint))
        self.abort(str(error))

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _report_end(task: asyncio.Task[None]) -> None:
    """Report a dialer that ended by itself, which is a bug: otherwise it would silently never dial again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "a dialer has ended", "exception": error}
        task.get_loop().call_exception_handler(context)
