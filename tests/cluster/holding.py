"""A process that holds many locks, over several clients, and says what became of them.

    python -m tests.cluster.holding SERVERS CLIENTS LOCKS_OF_EACH TTL

It prints one JSON object for each line that it reads, the first one without being asked, once it holds all locks:
`held`, how many it may believe in; `lost`, the reasons of the losses that it learned of; `tokens`, by the locks' names.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lockring
import lockring.aio
from lockring.client.aio.grants import Grant
from tests.processes import PATIENCE_S

ROOT: Final = Path(__file__).resolve().parents[2]

ASKED_AT_ONCE: Final = 500
"""Acquires of one client that are under way at a time."""


class Holders:
    """The process, as a test sees it."""

    def __init__(self, servers: str, *, clients: int, locks_each: int, ttl_s: float) -> None:
        self.count = clients * locks_each
        arguments = [servers, str(clients), str(locks_each), f"{ttl_s:g}"]
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.holding", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def answer(self) -> dict[str, Any]:
        """Return the next thing that it says."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line, f"the holders have ended with {self.popen.wait(PATIENCE_S)}"
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self) -> dict[str, Any]:
        """Ask what became of the locks."""
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()
        return self.answer()


@contextmanager
def holders(servers: str, *, clients: int, locks_each: int, ttl_s: float = 30) -> Iterator[Holders]:
    """Clients in a process of their own, which is killed at the end. It begins to acquire at once: see `answer`."""
    process = Holders(servers, clients=clients, locks_each=locks_each, ttl_s=ttl_s)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


async def _hold(client: lockring.aio.Client, names: list[str], lost: list[str]) -> dict[str, Grant]:
    room = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(name: str) -> Grant:
        async with room:
            grant = await client.lock(name).acquire()
        grant.on_lost(lambda loss: lost.append(loss.reason))
        return grant

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


async def _main(servers: str, clients: int, locks_each: int, ttl_s: float) -> None:
    loop = asyncio.get_running_loop()
    lost: list[str] = []
    grants: dict[str, Grant] = {}
    several = [lockring.aio.Client(servers, ttl=ttl_s, connect_timeout=PATIENCE_S) for _ in range(clients)]
    shares = [[f"held-{mine}-{number}" for number in range(locks_each)] for mine in range(clients)]
    for each in await asyncio.gather(*map(_hold, several, shares, [lost] * clients)):
        grants |= each
    while True:
        held = sum(grant.held for grant in grants.values())
        tokens = {name: grant.fencing_token for name, grant in grants.items()}
        print(json.dumps({"held": held, "lost": lost, "tokens": tokens}), flush=True)
        if not await loop.run_in_executor(None, sys.stdin.readline):
            return


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
