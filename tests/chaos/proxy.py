"""Links as a proxy before every server: for where network namespaces cannot be had.

Each server advertises its proxy's address. The opener of a connection is known from Linux, which names the process that
owns the other end; so a link of two processes can be cut although all of them reach a server at the same address.

Bytes that are cut off are kept and delivered after the mending, as TCP would by sending them again, and so is the end
of a connection. One difference to a real network remains: a connection can be opened through a cut; it is then
silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Final

from lockring.addresses import split_address
from lockring.server.local.children import free_ports
from lockring.testing import Place
from tests.chaos.links import Pids

HOST: Final = "127.0.0.1"
OUTSIDE: Final = "outside"
_READ_BYTES: Final = 64 * 1024
_CONNECT_S_MAX: Final = 5.0


class ProxyLinks:
    """One run's proxies, in a thread of this process.

    Args:
        pids: tells which process id belongs to which name at the moment; called in that thread.
    """

    kind = "proxy"
    forgets = True

    def __init__(self, pids: Pids) -> None:
        self._pids = pids
        self._places: dict[str, Place] = {}
        self._gates: dict[tuple[str, str], asyncio.Event] = {}
        self._passing: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._cuts: set[tuple[str, str]] = set()
        self._isolated: set[str] = set()
        self._open: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._closed = False

    def place(self, name: str) -> Place:
        """A port for the server, and the one of its proxy, which it advertises."""
        if name not in self._places:
            own, front = free_ports(HOST, 2)
            self._places[name] = Place(f"{HOST}:{own}", f"{HOST}:{front}")
            self._call(self._listen(name, front))
        return self._places[name]

    def prefix(self, name: str) -> tuple[str, ...]:
        """Clients are distinguished by their process id."""
        return ()

    def enter(self) -> None:
        """This process reaches the servers' own ports anyway."""

    def cut(self, source: str, target: str) -> None:
        """Close the gate for that direction."""
        self._call(self._set(source, target, is_open=False))

    def mend(self, source: str, target: str) -> None:
        """Open the gate for that direction."""
        self._call(self._set(source, target, is_open=True))

    def forget(self, source: str, target: str) -> None:
        """Swallow what comes on the connections of now. Their ends see no more of it than of a router's that has
        forgotten them, but that the system of the proxy acknowledges what they send: so only what the processes do by
        themselves helps."""
        self._call(self._forget(source, target))

    def isolate(self, name: str) -> None:
        """Close all gates to and from it."""
        self._call(self._set_isolated(name, is_isolated=True))

    def rejoin(self, name: str) -> None:
        """Open all gates to and from it that are not closed for another reason."""
        self._call(self._set_isolated(name, is_isolated=False))

    def close(self) -> None:
        """End all connections, and the thread."""
        if self._closed:
            return
        self._closed = True
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ----------------------------------------------------------------------- in the loop

    def _call(self, work: Coroutine[None, None, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result()

    async def _listen(self, name: str, port: int) -> None:
        server = await asyncio.start_server(
            lambda reader, writer: self._accept(name, reader, writer), HOST, port, backlog=256
        )
        self._servers.append(server)

    async def _set(self, source: str, target: str, *, is_open: bool) -> None:
        if is_open:
            self._cuts.discard((source, target))
        else:
            self._cuts.add((source, target))
        self._turn(source, target)

    async def _forget(self, source: str, target: str) -> None:
        for swallows in self._passing.get((source, target), ()):
            swallows.set()

    async def _set_isolated(self, name: str, *, is_isolated: bool) -> None:
        if is_isolated:
            self._isolated.add(name)
        else:
            self._isolated.discard(name)
        for source, target in self._gates:
            self._turn(source, target)

    def _turn(self, source: str, target: str) -> None:
        """Open or close a gate, as it should be now."""
        gate = self._gates.setdefault((source, target), asyncio.Event())
        if (source, target) in self._cuts or (
            OUTSIDE not in (source, target) and self._isolated & {source, target}
        ):
            gate.clear()
        else:
            gate.set()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for gate in self._gates.values():
            gate.set()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._open)

    def _gate(self, source: str, target: str) -> asyncio.Event:
        if (source, target) not in self._gates:
            self._turn(source, target)
        return self._gates[source, target]

    async def _accept(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self._writers.add(writer)
        try:
            await self._join(name, reader, writer)
        except OSError:
            pass  # a side is gone: the other one sees the same below
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._open.discard(task)

    async def _join(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = self._caller(writer)
        await self._gate(caller, name).wait()
        host, port = split_address(self._places[name].listen)
        async with asyncio.timeout(_CONNECT_S_MAX):
            their_reader, their_writer = await asyncio.open_connection(host, port)
        there, back = self._gate(caller, name), self._gate(name, caller)
        pairs = {(caller, name): asyncio.Event(), (name, caller): asyncio.Event()}
        for pair, swallows in pairs.items():
            self._passing.setdefault(pair, set()).add(swallows)
        self._writers.add(their_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, their_writer, there, pairs[caller, name]))
                group.create_task(_pump(their_reader, writer, back, pairs[name, caller]))
        except* OSError:
            pass  # reset by one side: both connections end
        finally:
            their_writer.transport.abort()
            self._writers.discard(their_writer)
            for pair, swallows in pairs.items():
                self._passing[pair].discard(swallows)

    def _caller(self, writer: asyncio.StreamWriter) -> str:
        """The name of the process that has opened a connection, `OUTSIDE` if it is none of ours."""
        inode = _inode_of(writer.get_extra_info("peername"), writer.get_extra_info("sockname"))
        for name, pid in self._pids().items():
            if inode and f"socket:[{inode}]" in _files_of(pid):
                return name
        return OUTSIDE


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, swallows: asyncio.Event
) -> None:
    """Pass bytes on in one direction, and in the end the end, whenever the gate is open; or swallow them and pass on
    only an end."""
    while True:
        try:
            data = await reader.read(_READ_BYTES)
        except OSError:
            await gate.wait()
            raise
        await gate.wait()
        if data and swallows.is_set():
            continue
        if not data:
            if writer.can_write_eof():
                writer.write_eof()
            return
        writer.write(data)
        await writer.drain()


def _inode_of(local: tuple[str, int], remote: tuple[str, int]) -> str:
    """The socket of this machine that has these two ends, "" if it is gone."""
    ends = [_hex(local), _hex(remote)]
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == ends:
            return fields[9]
    return ""


def _hex(address: tuple[str, int]) -> str:
    host = int.from_bytes(socket.inet_aton(address[0]), "little")
    return f"{host:08X}:{address[1]:04X}"


def _files_of(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(entry.path))
    return found
