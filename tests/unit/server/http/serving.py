"""A site with a port in the test's own event loop, and requests to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from lockring.addresses import split_address
from lockring.core.access import Grantee
from lockring.core.effects import AuditEntry
from lockring.server.http.basics import basic_pages
from lockring.server.http.hosts import KnownHosts
from lockring.server.http.pages import Page
from lockring.server.http.parts import Check, HttpPart
from lockring.server.http.port import HttpPort
from lockring.server.http.protocol import CONNECTIONS_MAX, ConnectionKeeper
from lockring.server.http.site import HttpSite
from lockring.server.tls import SecuringPages
from tests.unit.net.serving import until


class Gate:
    """An access control whose clients are all one grantee, who may be refused by an error."""

    def __init__(self, grantee: Grantee | None = None, error: Exception | None = None) -> None:
        self.is_on = grantee is not None or error is not None
        self.grantee = grantee
        self.error = error
        self.shown: list[str] = []
        self.entries: list[AuditEntry] = []

    def admit(self, certificate, credential, *, origin, is_call=False):
        self.shown.append(credential)
        if self.error is not None:
            raise self.error
        return self.grantee

    def record(self, entry, *, origin, via="") -> None:
        self.entries.append(entry)


class Served(NamedTuple):
    """A site that is served, and its address."""

    address: str
    site: HttpSite
    keeper: ConnectionKeeper

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*split_address(self.address))

    async def ask(self, request: str | bytes) -> Answer:
        """Send bytes, and read to the end."""
        reader, writer = await self.connect()
        try:
            writer.write(request if isinstance(request, bytes) else request.encode())
            return answer_of(await reader.read())
        finally:
            writer.close()

    async def get(self, path: str, *headers: str, method: str = "GET", host: str = "127.0.0.1") -> Answer:
        head = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
        return await self.ask("\r\n".join(head) + "\r\n\r\n")


class Answer(NamedTuple):
    """An answer: its status, its headers by name in lower case, and its body."""

    status: int
    headers: dict[str, str]
    body: str


def answer_of(data: bytes) -> Answer:
    head, _, body = data.decode().partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
    return Answer(int(first.split()[1]) if first else 0, headers, body)


def part(*checks: Check, leads: bool | None = None) -> HttpPart:
    return HttpPart(
        "node", lambda: list(checks), lambda figures: None, None if leads is None else lambda: bool(leads)
    )


@asynccontextmanager
async def serving(
    *pages: Page,
    parts: Sequence[HttpPart] = (),
    gate: Gate | None = None,
    hosts: Sequence[str] = (),
    prefix: str = "",
    connections_max: int = CONNECTIONS_MAX,
    secure: SecuringPages | None = None,
) -> AsyncIterator[Served]:
    made: list[Any] = []

    def make(_: int) -> ConnectionKeeper:
        site = HttpSite(
            [*basic_pages(parts), *pages], gate=gate or Gate(), hosts=KnownHosts(hosts), prefix=prefix
        )
        keeper = ConnectionKeeper(site, connections_max=connections_max)
        made.extend([site, keeper])
        return keeper

    port = HttpPort(make, ending=lambda: made[0].is_ending.set() if made else None, secure=secure)
    address = await port.start("127.0.0.1:0")
    try:
        _, writer = await asyncio.open_connection(*split_address(address))
        await until(lambda: bool(made))
        writer.close()
        await writer.wait_closed()
        await until(lambda: not len(made[1]))
        yield Served(address, *made)
    finally:
        await port.stop(1.0)
