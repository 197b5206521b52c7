"""A client core with scripted servers around it: time by hand, and every message in sight."""

from __future__ import annotations

import struct
from itertools import count
from typing import Any, TypeGuard, TypeVar

from lockring.core.client import (
    CallResult,
    ClientCore,
    ClientEffect,
    Connect,
    Disconnect,
    GrantLost,
    Resolve,
    SendTo,
    Ticket,
    Update,
)
from lockring.core.digest import mix
from lockring.errors import LockringError
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    GrantReply,
    HolderRecord,
    Keepalive,
    LockRecord,
    Message,
    ReleaseReply,
    Routes,
    Unwatch,
    Welcome,
)
from lockring.slots import SLOTS, slot_of
from lockring.units import NS_PER_MS, NS_PER_S

A, B, C = "10.0.0.1:9501", "10.0.0.2:9501", "10.0.0.3:9501"
COORDINATOR = "10.0.0.9:9500"
TTL_MS = 9_000
TTL_NS = TTL_MS * NS_PER_MS

M = TypeVar("M", bound=Message)


def routes(
    version: int,
    primaries: dict[int, int | None] | int | None = 0,
    members: list[tuple[str, int, str]] | None = None,
) -> Routes:
    """Routes over members A, B and C; `primaries` is one place for all slots, or a place by slot (else 0)."""
    if members is None:
        members = [("a", 1, A), ("b", 1, B), ("c", 1, C)]
    places = primaries if isinstance(primaries, dict) else dict.fromkeys(range(SLOTS), primaries)
    numbers = [places.get(slot, 0) for slot in range(SLOTS)]
    packed = struct.pack(f"<{SLOTS}H", *(0xFFFF if number is None else number for number in numbers))
    return Routes(version, members, packed, COORDINATOR)


def lock_info(name: str, generation: int = 1, seq: int = 0, owner: str = "someone") -> LockRecord:
    """A lock with one holder."""
    holder = HolderRecord(owner, "s", 1, generation, 5, 1000, 900)
    return LockRecord(name, slot_of(name), "a", 0, 1, generation, seq, [holder], [])


class World:
    """One client core; answers are what the test says."""

    def __init__(self, seeds: list[str] | None = None, **options: Any) -> None:
        ids = count(1)
        options.setdefault("new_id", lambda: f"id{next(ids)}")
        self.core = ClientCore(seeds or [A], owner="tester", **options)
        self.now_ns = 100 * NS_PER_S
        self.effects: list[ClientEffect] = []
        self.link_of: dict[str, int] = {}
        self.rival_of: dict[str, int] = {}
        self.deaf: set[int] = set()
        """Links on which nothing is answered by itself."""

    # ---- time

    def take(self) -> list[ClientEffect]:
        """Let the core process its deadlines, and return the effects since the last call."""
        for _ in range(20):
            due = self.core.next_deadline_ns()
            if due is None or due > self.now_ns:
                break
            self.core.on_timer(now_ns=self.now_ns)
        else:
            raise AssertionError("the core never stops being due")
        self.core.check_invariants()
        taken = self.effects + self.core.take_effects(now_ns=self.now_ns)
        while pings := [e for e in taken if is_ping(e) and e.link not in self.deaf]:
            for ping in pings:
                self.core.receive(ping.link, ReleaseReply(ping.message.request, False), now_ns=self.now_ns)
            taken = [e for e in taken if e not in pings] + self.core.take_effects(now_ns=self.now_ns)
        self.effects = []
        for effect in taken:
            if isinstance(effect, Connect):
                if self.core.link(self.link_of.get(effect.address, 0)) is not None:
                    self.rival_of[effect.address] = effect.link
                else:
                    self.link_of[effect.address] = effect.link
        return taken

    def pass_s(self, seconds: float) -> list[ClientEffect]:
        """Let time pass, calling the timer at each deadline on the way."""
        end = self.now_ns + round(seconds * NS_PER_S)
        taken = self.take()
        for _ in range(10_000):
            due = self.core.next_deadline_ns()
            if due is None or due > end:
                break
            self.now_ns = max(self.now_ns, due)
            taken += self.take()
        self.now_ns = end
        return taken + self.take()

    # ---- what servers do

    def say(self, address: str, *messages: Message) -> list[ClientEffect]:
        """Let the server at an address send messages."""
        for message in messages:
            self.core.receive(self.link_of[address], message, now_ns=self.now_ns)
        return self.take()

    def accept(
        self,
        address: str,
        *messages: Message,
        node: str = "",
        incarnation: int = 1,
        is_of_this_version: bool = True,
    ) -> list[ClientEffect]:
        """Let the pending connection to an address succeed, be greeted, and let the server send messages."""
        self.effects += self.take()
        if address not in self.link_of:
            self.effects += self.pass_s(0.07)  # the pause after a connection that broke at once
        link = self.link_of[address]
        self.core.connected(link, now_ns=self.now_ns)
        before = self.take()
        hello = only(before, ClientHello)
        assert hello.protocol == PROTOCOL
        self.effects = [effect for effect in before if not isinstance(effect, (SendTo, Connect))]
        node = node or {A: "a", B: "b", C: "c"}.get(address, "")
        role = "node" if node else "coordinator"
        welcome = Welcome(
            PROTOCOL,
            "cluster",
            role,
            node,
            incarnation,
            1,
            COORDINATOR,
            identities=is_of_this_version,
            probes=is_of_this_version and role == "coordinator",
        )
        return self.say(address, welcome, *messages)

    def accept_rival(self, address: str, *messages: Message, node: str) -> list[ClientEffect]:
        """Let the second connection to an address succeed, and take the first one's place."""
        link = self.link_of[address] = self.rival_of.pop(address)
        self.core.connected(link, now_ns=self.now_ns)
        only(self.take(), ClientHello)
        return self.say(address, Welcome(PROTOCOL, "cluster", "node", node, 1, 1, COORDINATOR), *messages)

    def cut(
        self, address: str, reason: str = "reset", error: LockringError | None = None
    ) -> list[ClientEffect]:
        """Break the connection to an address."""
        link = self.link_of.pop(address)
        self.core.disconnected(link, now_ns=self.now_ns, reason=reason, error=error)
        return self.take()

    # ---- what callers do

    def acquire(self, name: str = "x", **options: Any) -> Ticket:
        """Call acquire; effects stay for `take`."""
        options.setdefault("ttl_ms", TTL_MS)
        return self.core.acquire(name, now_ns=self.now_ns, **options)

    def release(self, ticket: Ticket) -> list[ClientEffect]:
        """Call release."""
        self.core.release(ticket, now_ns=self.now_ns)
        return self.take()

    def cancel(self, ticket: Ticket) -> list[ClientEffect]:
        """Call cancel."""
        self.core.cancel(ticket, now_ns=self.now_ns)
        return self.take()

    def hold(self, name: str = "x", generation: int = 7, address: str = A, **options: Any) -> Ticket:
        """Acquire a lock and have it granted at once by the server at `address`, which is linked."""
        ticket = self.acquire(name, **options)
        self.take()
        self.say(
            address,
            GrantReply(ticket.exchange.request, generation, ticket.session.ttl_ms, ticket.exchange.request),
        )
        assert self.believes(ticket)
        return ticket

    def believes(self, ticket: Ticket) -> bool:
        """Whether the client takes the ticket for held now."""
        return self.core.believes(ticket, self.now_ns)


def connected(seeds: list[str] | None = None, first: Routes | None = None, **options: Any) -> World:
    """A world whose client is linked to A, which has all slots unless `first` says otherwise."""
    world = World(seeds, **options)
    ticket = world.acquire("warm up")
    world.accept(A, routes(1) if first is None else first)
    if ticket.exchange.link:
        world.say(A, GrantReply(ticket.exchange.request, 1, TTL_MS, ticket.exchange.request))
        request = only(world.release(ticket), Message).request  # type: ignore[attr-defined]
        world.say(A, ReleaseReply(request, True))
    else:
        world.cancel(ticket)
    world.core._outstanding.recent_releases.clear()  # the warm-up is not what a test is about
    return world


def is_ping(effect: ClientEffect) -> TypeGuard[Any]:
    """Whether this asks only whether the node is there, which every node answers at once."""
    return isinstance(effect, SendTo) and isinstance(effect.message, Unwatch) and not effect.message.watch


def sent(effects: list[ClientEffect], kind: type[M] = Message) -> list[M]:  # type: ignore[assignment]
    """The messages of a kind among the effects."""
    return [e.message for e in effects if isinstance(e, SendTo) and isinstance(e.message, kind)]


def only(effects: list[ClientEffect], kind: type[M]) -> M:
    """The one message of a kind among the effects."""
    found = sent(effects, kind)
    assert len(found) == 1, effects
    return found[0]


def connects(effects: list[ClientEffect]) -> list[str]:
    """The addresses to which links were asked for."""
    return [e.address for e in effects if isinstance(e, Connect)]


def disconnects(effects: list[ClientEffect]) -> list[str]:
    """Why links were closed."""
    return [e.reason for e in effects if isinstance(e, Disconnect)]


def resolved(effects: list[ClientEffect]) -> list[tuple[Ticket, LockringError | None]]:
    """The calls that ended."""
    return [(e.ticket, e.error) for e in effects if isinstance(e, Resolve)]


def lost(effects: list[ClientEffect]) -> list[tuple[Ticket, str]]:
    """The grants that were lost."""
    return [(e.ticket, e.reason) for e in effects if isinstance(e, GrantLost)]


def answers(effects: list[ClientEffect]) -> list[CallResult]:
    """The questions that were answered."""
    return [e for e in effects if isinstance(e, CallResult)]


def updates(effects: list[ClientEffect]) -> list[LockRecord]:
    """Return the locks in the updates of watches."""
    return [e.lock for e in effects if isinstance(e, Update)]


def same_slot_names(amount: int) -> list[str]:
    """Different names of one slot."""
    wanted = slot_of("x")
    found = ["x"]
    for number in count():
        if slot_of(f"n{number}") == wanted:
            found.append(f"n{number}")
            if len(found) == amount:
                return found
    raise AssertionError


def digest_of(*acquisitions: int) -> int:
    total = 0
    for acquisition in acquisitions:
        total ^= mix(acquisition)
    return total


def next_keepalive(world: World) -> Keepalive:
    """Let time pass until the next keepalive; all of its time has to be spent in it."""
    for _ in range(1_000):
        found = sent(world.pass_s(0.01), Keepalive)
        if found:
            assert len(found) == 1
            return found[0]
    raise AssertionError("no keepalive")
