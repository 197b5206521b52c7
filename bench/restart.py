"""Kill every process of a cluster that holds many locks, start it again, and measure the time to the next grant.

Not a workload of `run`: no peer keeps a client's locks over that. The time counts from the start of the command, as a
user types it, so it has the interpreter and its imports. Their bytecode is there, as an installation leaves it: to
compile the source takes each process longer than all else. The holders are in a process of their own, and go on to
renew meanwhile: they share the machine's cores with the start, as on a user's machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

import lockring
import lockring.aio
from bench.children import Child, Inbox
from bench.processes import ServerProcess, cpu_s
from lockring.client.aio.grants import Grant
from lockring.errors import LockringError
from lockring.net.oneshot import ask_status
from lockring.slots import SLOTS
from lockring.testing.ports import ReservedPorts

CLIENTS: Final = 4
_ASKED_AT_ONCE: Final = 500
_TTL_S: Final = 30
_WAIT_S_MAX: Final = 120.0
_FILL_S_MAX: Final = 600.0
_POLL_S: Final = 0.02


class Start(NamedTuple):
    """The figures of one start.

    Attributes:
        grant_s: from the start of the command until a client that knew nothing before has a free lock.
        all_s: until every slot is served.
        grant_cpu_s: processor time of all processes of the cluster until that grant.
        held: how many locks are still held, as their holders see it.
    """

    grant_s: float
    all_s: float
    grant_cpu_s: float
    held: int


def measure(command: str, *, locks: int, starts: int, nodes: int) -> Iterator[Start]:
    """Fill a cluster, and yield the figures of each start after a kill of all of its processes at once.

    Args:
        command: "serve" or "up".
        locks: how many are held.
        starts: how many starts to measure.
        nodes: of `up`.
    """
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lockring-restart-")))
        ports = stack.enter_context(contextlib.closing(ReservedPorts())).take(nodes + 1)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        shared = ("--no-grpc", "--data-dir", str(directory / "data"))
        if command == "serve":
            servers = addresses[:1]
            more = ("--listen", addresses[0], "--coordinator-listen", addresses[1])
        else:
            servers = addresses[1:]
            more = ("--nodes", str(nodes), "--port", str(ports[0]))
        # Written by the first start, whatever the environment says, and read by those that are measured.
        bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
        server = ServerProcess(
            [sys.executable, "-m", "lockring", command, *shared, *more], directory / "log", environ=bytecode
        )
        stack.callback(server.stop)
        server.start(lambda: _serves_all(servers))
        holders = stack.enter_context(Child(_hold, ",".join(servers), locks // CLIENTS))
        holders.hear(_FILL_S_MAX)
        for _ in range(starts):
            server.stop()
            yield _start(server, servers, holders, directory / "data")


def _start(server: ServerProcess, servers: list[str], holders: Child[None], data: Path) -> Start:
    began_s = time.monotonic()
    server.start(lambda: _is_there(servers[0]))
    with lockring.Client(",".join(servers)) as client:
        grant = client.lock("free").acquire(timeout=_WAIT_S_MAX)
        grant_s, grant_cpu_s = time.monotonic() - began_s, cpu_s([server.pid])
        grant.release()
    _wait_until(lambda: _serves_all(servers), "not every slot is served")
    all_s = time.monotonic() - began_s
    # So that the length of what the next start reads does not vary.
    _wait_until(lambda: _are_rewritten(data), "a journal was not written again")
    holders.tell("how many?")
    return Start(grant_s, all_s, grant_cpu_s, holders.hear(_WAIT_S_MAX))


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + _WAIT_S_MAX
    while not condition():
        if time.monotonic() >= until_s:
            raise TimeoutError(f"{what} after {_WAIT_S_MAX:g} s")
        time.sleep(_POLL_S)


def _are_rewritten(data: Path) -> bool:
    """Return whether each journal is one segment long: the older ones go once everything stands in the newest."""
    segments = Counter(path.parent for path in data.glob("**/journal/*.log"))
    return all(number == 1 for number in segments.values())


def _is_there(server: str) -> bool:
    try:
        ask_status(server, timeout_s=_WAIT_S_MAX)
    except LockringError:
        return False
    return True


def _serves_all(servers: list[str]) -> bool:
    try:
        return sum(ask_status(each, timeout_s=_WAIT_S_MAX).serving for each in servers) == SLOTS
    except LockringError:
        return False


def _hold(inbox: Inbox, servers: str, locks_each: int) -> None:
    """Hold locks over several clients, and say how many are held: once it has all, and whenever it is asked."""
    uvloop.run(_holding(inbox, servers, locks_each))


async def _holding(inbox: Inbox, servers: str, locks_each: int) -> None:
    loop = asyncio.get_running_loop()
    clients = [lockring.aio.Client(servers, ttl=_TTL_S) for _ in range(CLIENTS)]
    room = asyncio.Semaphore(CLIENTS * _ASKED_AT_ONCE)

    async def take(client: lockring.aio.Client, name: str) -> Grant:
        async with room:
            return await client.lock(name).acquire()

    wanted = [
        take(client, f"held-{place}-{number}")
        for place, client in enumerate(clients)
        for number in range(locks_each)
    ]
    grants = await asyncio.gather(*wanted)
    while True:
        inbox.say(sum(grant.held for grant in grants))
        await loop.run_in_executor(None, inbox.hear)
