"""Accepts connections, counts them, and gives each client its turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from lockring.addresses import format_address, split_address
from lockring.clock import monotonic_ns
from lockring.errors import CannotListen, LockringError, Overloaded
from lockring.net.accepted import TURN_NS_MAX, AcceptedConnection, ConnectionHandler, Role
from lockring.net.connection import Outbox
from lockring.net.descriptors import CLIENTS_MAX, RESERVED_MAX, room_for
from lockring.protocol import (
    ToCoordinator,
    ToNode,
)
from lockring.system_errors import listen_failure
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_MS, NS_PER_S

TURNS_NS_MAX: Final = 50 * NS_PER_MS
"""How long all clients together are handled without a look at timers and members. Else so many that each ask for little
would keep the server from its peers just as well."""

_BACKLOG: Final = 1024
_CALM_NS: Final = 60 * NS_PER_S

log = logging.getLogger("lockring.net")


class Listener:
    """A listening port. Lives in one event loop.

    Args:
        host: what to do with those who come in.
        outbox: where the guests' writes wait for the flush.
        clients_max: how many clients to accept, if the system lets it.
        ports: how many listeners share the descriptors of this process.
    """

    def __init__(
        self, host: ConnectionHandler, outbox: Outbox, *, clients_max: int = CLIENTS_MAX, ports: int = 1
    ) -> None:
        self.host = host
        self.outbox = outbox
        self.turns_are_over = False
        """Whether the clients have had their time until the event loop has looked at everything else."""
        # All messages to any server, so that one on the wrong port can be told from garbage.
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToNode | ToCoordinator)
        self._clients_max = clients_max
        self._reserved = RESERVED_MAX
        self._ports = ports
        self._clients = 0
        self._full = RepeatedTrouble(calm_ns=_CALM_NS)
        self._refusals: dict[str, RepeatedTrouble] = {}
        self._guests: dict[int, AcceptedConnection] = {}
        self._numbers: Callable[[], int] = itertools.count(1).__next__
        self._server: asyncio.Server | None = None
        self._address = ""
        self._emptied: asyncio.Event | None = None
        self._turns: deque[AcceptedConnection] = deque()
        self._turns_ns = 0
        self._turns_are_due = False

    @property
    def guests(self) -> Iterable[AcceptedConnection]:
        """All connections that are open."""
        return self._guests.values()

    async def open(self, address: str) -> str:
        """Take the port HOST:PORT, without accepting anybody yet; port 0 takes any free one.

        Returns:
            HOST:PORT with the port that it is.

        Raises:
            InvalidRequest: not an address.
            ConfigError: the system lets this process open too few files.
            CannotListen: the port is taken, the host is unknown or not of this machine.
        """
        host, port = split_address(address)
        room = room_for(self._ports)
        if room.clients < self._clients_max:
            self._clients_max = room.clients
            if room.remark:
                log.warning("%s", room.remark)
        self._reserved = room.reserved
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._make, host, port, backlog=_BACKLOG, start_serving=False
            )
        except OSError as error:
            raise CannotListen(f"cannot listen on {address}: {listen_failure(error)}") from error
        self._address = format_address(host, self._server.sockets[0].getsockname()[1])
        return self._address

    async def begin(self) -> None:
        """Accept connections from now on.

        Raises:
            CannotListen: somebody else was faster.
        """
        assert self._server is not None
        try:
            await self._server.start_serving()
        except OSError as error:
            raise CannotListen(f"cannot listen on {self._address}: {listen_failure(error)}") from error

    def close(self, reason: str) -> None:
        """Accept nobody any more, and end all connections once what was sent on them is out."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for guest in list(self._guests.values()):
            guest.close(reason)

    async def closed(self, timeout_s: float) -> None:
        """After `close`: wait until all connections have ended; cut those that have not in time."""
        if self._guests:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
        for guest in list(self._guests.values()):
            guest.abort("the server stops")

    def guest(self, number: int) -> AcceptedConnection | None:
        """The open connection of that number."""
        return self._guests.get(number)

    # ----------------------------------------------------------------------- for Guest

    def add(self, guest: AcceptedConnection) -> None:
        """Count a new connection.

        Raises:
            Overloaded: there are too many that are no members.
        """
        self._guests[guest.number] = guest
        if len(self._guests) > self._clients_max + self._reserved:
            raise self._refusal(f"{len(self._guests) - 1} connections")

    def count_in(self, role: Role) -> None:
        """Count a connection whose role is known now.

        Raises:
            Overloaded: there are too many clients.
        """
        if not role.is_member:
            if self._clients >= self._clients_max:
                raise self._refusal(f"{self._clients} client connections")
            self._clients += 1

    def remove(self, guest: AcceptedConnection) -> None:
        """Forget a connection that has ended."""
        self._guests.pop(guest.number, None)
        if guest.role is not None and not guest.role.is_member:
            self._clients -= 1
        if self._full.is_on and self._clients < self._clients_max and len(self._guests) <= self._clients_max:
            self._full.ends(now_ns=monotonic_ns())
        if self._emptied is not None and not self._guests:
            self._emptied.set()

    def tell_of(self, guest: AcceptedConnection, what: str, error: LockringError, level: int) -> None:
        """Log what was done with a guest. Of those who are no members, who may come as often as they like, not each time."""
        text = str(error)
        if guest.role is None or not guest.role.is_member:
            text = self._refusals.setdefault(error.code, RepeatedTrouble()).fails(text, now_ns=monotonic_ns())
        if text:
            log.log(level, "%s %s at %s: %s", what, guest.title, guest.remote, text)

    def count_turn(self, took_ns: int) -> None:
        """A client's messages were handled, which took so long."""
        self._turns_ns += took_ns
        # Less than this need not be told apart from what an earlier turn of the event loop took.
        if self._turns_ns > TURN_NS_MAX:
            self.turns_are_over = self._turns_ns > TURNS_NS_MAX
            self._give_turns_soon()

    def line_up(self, guest: AcceptedConnection) -> None:
        """Call `take_turn` of this guest after those that are waiting already."""
        self._turns.append(guest)
        self._give_turns_soon()

    def _give_turns_soon(self) -> None:
        if not self._turns_are_due:
            self._turns_are_due = True
            asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        self._turns_are_due = False
        self._turns_ns = 0
        self.turns_are_over = False
        for _ in range(len(self._turns)):
            if self.turns_are_over:
                break
            self._turns.popleft().take_turn()
        if self._turns:
            self._give_turns_soon()

    def _refusal(self, what: str) -> Overloaded:
        text = f"this server has {what}, which is its limit"
        told = self._full.fails(text, now_ns=monotonic_ns())
        if told:
            log.warning("clients are refused: %s", told)
        return Overloaded(f"{text}; try again later, or another node")

    def _make(self) -> AcceptedConnection:
        return AcceptedConnection(self, self._numbers(), self._decoder)
