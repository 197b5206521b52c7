"""Keeps one outgoing connection up: dials, greets, hands over what comes, and dials again when it is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from lockring.addresses import split_address
from lockring.errors import LockringError, ProtocolError, Unavailable, from_code
from lockring.net.accepted import MEMBER_UNREAD_BYTES_MAX
from lockring.net.connection import FramedConnection, Outbox
from lockring.protocol import FRAME_BYTES_MAX, PROTOCOL, Message, Refusal, Welcome

CONNECT_S_MAX: Final = 2.0
"""How long the other machine may take to accept a connection."""

ANSWER_S_MAX: Final = 5.0
"""How long the server may take to answer the first message."""


class Caller(Protocol):
    """Who uses a dialer. All methods are called in the event loop, and the last three in turn."""

    def hello(self) -> Message:
        """The first message of the next connection."""

    def turned_away(self, address: str, error: LockringError, hint: int) -> None:
        """The attempt failed: nobody there (`Unavailable`), refused, or what answered speaks something else.
        The next one follows after a pause, unless the dialer is closed in here."""

    def opened(self, address: str, welcome: Welcome) -> None:
        """The connection is up and welcomed; `dialer.connection` is it. May raise a `LockringError` to end it."""

    def arrived(self, messages: list[Message]) -> None:
        """Messages came in. May raise a `LockringError` to end the connection."""

    def lost(self, reason: str) -> None:
        """The connection that was opened has ended."""


class Dialer:
    """One outgoing connection that is dialed again for as long as it is wanted. Not thread-safe.

    Args:
        caller: who uses it.
        addresses: HOST:PORT of the servers to try in turn, asked for anew at each attempt.
        accepted: the messages that the server may send.
        outbox: where writes wait for the flush.
        pause_s_min: pause after the first failure; it doubles with each one that follows …
        pause_s_max: … up to this. A connection that ends sooner than this is a failure too.
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
    ) -> None:
        self.caller = caller
        self.connection: _DialedConnection | None = None
        """The connection while it is up and welcomed, else None."""
        self._addresses = addresses
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(accepted)
        self._outbox = outbox
        self._pause_s_min = pause_s_min
        self._pause_s_max = pause_s_max
        self._task: asyncio.Task[None] | None = None
        self._attempt: _DialedConnection | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to dial."""
        assert self._task is None
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_report_end)

    def close(self, reason: str) -> None:
        """Dial no more; end the connection once what was sent on it is out. `caller.lost` is not called."""
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
            for address in self._addresses():
                began_s = loop.time()
                if await self._try(address) and loop.time() - began_s >= self._pause_s_max:
                    pause_s = self._pause_s_min
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(pause_s * 2, self._pause_s_max)

    async def _try(self, address: str) -> bool:
        """One connection from its dialing to its end; whether it was welcomed."""
        outgoing = _DialedConnection(self, self._decoder, self._outbox, address)
        try:
            host, port = split_address(address)
            async with asyncio.timeout(CONNECT_S_MAX):
                await asyncio.get_running_loop().create_connection(lambda: outgoing, host, port)
        except Exception as error:  # noqa: BLE001 - a name that cannot be, no thread to look it up with, no memory: tried again
            self.caller.turned_away(address, Unavailable(f"{address} cannot be reached: {_text(error)}"), 0)
            return False
        self._attempt = outgoing
        try:
            outgoing.send(self.caller.hello())
            outgoing.write_out()
            refusal = await outgoing.answered
            if refusal is not None:
                self.caller.turned_away(address, *refusal)
                return False
            await outgoing.ended
            return True
        finally:
            self._attempt = None
            if not self._closed:
                outgoing.abort("it was hung up")

    # ----------------------------------------------------------------------- for _Outgoing

    def up(self, outgoing: _DialedConnection, welcome: Welcome) -> None:
        """The connection was welcomed."""
        self.connection = outgoing
        self.caller.opened(outgoing.address, welcome)

    def down(self, outgoing: _DialedConnection, reason: str) -> None:
        """The connection ended."""
        if self.connection is outgoing:
            self.connection = None
            self.caller.lost(reason)


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
        """None once welcomed, or why not, and the hint that came with it."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self._dialer = dialer
        self._patience: asyncio.TimerHandle | None = None

    def on_open(self) -> None:
        """Start the patience with the answer."""
        self._patience = asyncio.get_running_loop().call_later(ANSWER_S_MAX, self._too_slow)

    def on_messages(self, messages: list[Message]) -> None:
        """The first message answers the hello; hand over those after it."""
        if not self.answered.done():
            self._patience_ends()
            first, *messages = messages
            if isinstance(first, Refusal):
                self._fail(from_code(first.code, first.text, name=first.name), first.hint)
                return
            if not isinstance(first, Welcome):
                self.on_garbage(ProtocolError(f"it answered a hello with {type(first).__name__}"))
                return
            if first.protocol != PROTOCOL:
                self.on_garbage(ProtocolError(f"it speaks version {first.protocol} of the protocol"))
                return
            self.answered.set_result(None)
            try:
                self._dialer.up(self, first)
            except LockringError as error:
                self.abort(str(error))
                return
        if messages and self.is_open:
            try:
                self._dialer.caller.arrived(messages)
            except LockringError as error:
                self.abort(str(error))

    def on_garbage(self, error: ProtocolError) -> None:
        """What is there is no lockring server, or a broken one."""
        self._fail(ProtocolError(f"{self.address} is no lockring server of this version: {error}"), 0)

    def on_end(self, reason: str) -> None:
        """Let the dialer go on."""
        self._patience_ends()
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

    def _patience_ends(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _report_end(task: asyncio.Task[None]) -> None:
    """A dialer that ends by itself is a bug: say so, instead of never dialing again."""
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": "a dialer has ended", "exception": error}
        task.get_loop().call_exception_handler(context)


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_S_MAX:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
