"""Conversations of strangers; each follows from a seed and its own number.

A conversation is one connection to one port, with a hello or without, and the inputs that are sent on it. One input
is one frame, or what stands in place of one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from lockring.net.accepted import CLIENT_FRAME_BYTES_MAX, HELLO_BYTES_MAX
from lockring.protocol import FRAME_BYTES_MAX, PROTOCOL
from tests.hostile.guises import PLAIN, Shown
from tests.hostile.samples import (
    CLIENTS,
    NAMED,
    Facts,
    Sampler,
    flipped,
    frame,
    is_command,
    packed,
    understood,
)

Role = Literal["nobody", "client", "peer"]
Ending = Literal["garbage", "close", "reset", "silence", "pause"]

FINAL: Final = b"\x00\x00\x00\x01\xc1"
"""No message in any role: the server refuses it and ends the connection, so all before it has been handled by then."""

_CLIENT_MESSAGES: Final = (
    *("Acquire", "Acquire", "Acquire", "Release", "Release", "Keepalive", "CloseSession", "Describe"),
    *("List", "Watch", "Unwatch", "Break", "GetState", "DescribeGroup", "FollowGroup", "ViewAck"),
    *("GetEvents", "FindSimilar"),
)
_PEER_MESSAGES: Final = ("Replicate", "Replicate", "HandOver", "State")


class Conversation(NamedTuple):
    """One connection's worth of hostility.

    Attributes:
        number: with the seed, all that it follows from.
        kind: for the report.
        opening: a hello that the server accepts, or nothing; no input.
        inputs: what is sent then, one after the other.
        ending: how the stranger leaves: with garbage that makes the server end it, by closing or resetting the
            connection in the middle, not at all, until the server has had enough, or after a moment.
        byte_pause_s: if not 0, the pause after each single byte.
        shown: its TLS.
    """

    number: int
    kind: str
    opening: bytes
    inputs: list[bytes]
    ending: Ending = "garbage"
    byte_pause_s: float = 0.0
    shown: Shown = PLAIN


def converse(seed: int, number: int, facts: Facts) -> Conversation:
    """The conversation of this number, at a port with these facts."""
    return drawn(random.Random(f"{seed}/{number}"), number, facts)


def drawn(rng: random.Random, number: int, facts: Facts) -> Conversation:
    """The conversation that follows from a generator of random numbers."""
    kind = rng.choices(list(_MAKERS), [weight for weight, _ in _MAKERS.values()])[0]
    made = _MAKERS[kind][1](_Draft(rng, facts))
    inputs = [each for each in made.inputs if not any(is_command(m, facts) for m in understood(each))]
    return Conversation(number, kind, made.opening, inputs, made.ending, made.byte_pause_s)


class _Made(NamedTuple):
    opening: bytes
    inputs: list[bytes]
    ending: Ending = "garbage"
    byte_pause_s: float = 0.0


class _Draft:
    """The common input of the makers of conversations."""

    def __init__(self, rng: random.Random, facts: Facts) -> None:
        self.rng = rng
        self.facts = facts
        self.plain = Sampler(rng, facts)
        self.extreme = Sampler(rng, facts, extreme=0.25)
        self.misshapen = Sampler(rng, facts, extreme=0.1, wrong=0.2)

    @property
    def is_node(self) -> bool:
        return self.facts.me.node != ""

    def role(self) -> Role:
        """A role that can be had at this port."""
        return self.rng.choice(
            ("nobody", "client", "client", "peer") if self.is_node else ("nobody", "client")
        )

    def opening(self, role: Role) -> bytes:
        """The hello that gives this role."""
        if role == "client":
            client = f"stranger-{self.rng.randrange(CLIENTS)}-{self.rng.random()}"
            shown: list[object] = []
            if self.facts.tokens and self.rng.random() < 0.4:
                shown = ["", False, self.rng.choice(self.facts.tokens)]
            return frame(packed([1, PROTOCOL, self.facts.state.cluster, client, 1, *shown]))
        return self.peer_hello() if role == "peer" else b""

    def peer_hello(self) -> bytes:
        """Pretend to be a node: one that is unknown, a later life of one that is known, or the very one that is
        asked."""
        rng, me = self.rng, self.facts.me
        node = rng.choice(
            (f"N{rng.randrange(10, 10**9)}", "x" * rng.randrange(1, 3000), *self.facts.state.members)
        )
        incarnation = 2**62 + rng.randrange(2**61)
        return frame(
            packed([2, PROTOCOL, self.facts.state.cluster, node, incarnation, me.node, me.incarnation])
        )

    def frame_of(self, sampler: Sampler) -> bytes:
        return frame(packed(sampler.any_message()))

    def several(self, one: Callable[[], bytes], most: int) -> list[bytes]:
        return [one() for _ in range(self.rng.randint(1, most))]


def _noise(draft: _Draft) -> _Made:
    """Bytes without any sense, or with the sense of another protocol."""
    rng = draft.rng
    other = (
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-x\r\n",
        b"\n" * 40,
    )
    data = rng.choice((rng.randbytes(rng.choice((1, 3, 4, 5, 40, 5000, 70_000))), rng.choice(other)))
    if rng.random() < 0.5:
        return _Made(draft.opening(draft.role()), [frame(data[:4000])])
    return _Made(draft.opening(draft.role()), [data], rng.choice(("close", "reset")))


def _truncated(draft: _Draft) -> _Made:
    """A frame that breaks off, after some that do not."""
    whole = draft.frame_of(draft.plain)
    part = whole[: draft.rng.randrange(1, max(2, len(whole)))]
    return _Made(draft.opening(draft.role()), [part], draft.rng.choice(("close", "reset")))


def _oversized(draft: _Draft) -> _Made:
    """A frame that announces more than any sender may send."""
    rng = draft.rng
    limits = (HELLO_BYTES_MAX, CLIENT_FRAME_BYTES_MAX, FRAME_BYTES_MAX, 2**31, 2**32 - 2)
    length = rng.choice(limits) + rng.choice((0, 1, 1))
    body = rng.randbytes(rng.choice((0, 10, 100_000)))
    return _Made(
        draft.opening(draft.role()), [length.to_bytes(4, "big") + body], rng.choice(("close", "reset"))
    )


def _mutated(draft: _Draft) -> _Made:
    """A message with some bits or bytes changed, its length adjusted so that the server reads it."""
    rng = draft.rng
    body = packed(draft.plain.any_message())
    return _Made(draft.opening(draft.role()), [frame(flipped(rng, body, rng.choice((1, 1, 2, 8))))])


def _misshapen(draft: _Draft) -> _Made:
    """A message with fields of other types, too few or too many of them, another tag, or none."""
    rng = draft.rng
    sample = draft.misshapen.any_message()
    match rng.randrange(6):
        case 0:
            del sample[rng.randrange(len(sample)) :]
        case 1:
            sample += [rng.choice((0, "more", [], None))] * rng.choice((1, 3, 30_000))
        case 2:
            sample[0] = rng.choice((0, -1, 9, 99, 2**63, "tag", None, 1.0, [1]))
    return _Made(draft.opening(draft.role()), [frame(packed(sample))])


def _extreme(draft: _Draft) -> _Made:
    """Messages of the right form with numbers and texts at, and beyond, every bound; in the role that takes them."""
    role = draft.role()
    if role == "nobody":
        return _Made(b"", [draft.frame_of(draft.extreme)])
    return _Made(draft.opening(role), draft.several(lambda: _spoken(draft, role, draft.extreme), 12))


def _misplaced(draft: _Draft) -> _Made:
    """A message in order that has no business here: before the hello, after it, or of another role."""
    return _Made(draft.opening(draft.role()), [draft.frame_of(draft.plain)])


def _hello(draft: _Draft) -> _Made:
    """Hellos of other clusters and protocols, of nodes for other nodes; a second hello after the first."""
    rng = draft.rng
    sampler = rng.choice((draft.plain, draft.extreme))
    kind = NAMED[rng.choice(("ClientHello", "PeerHello", "Join"))]
    fixed: dict[str, object] = {}
    if rng.random() < 0.3:
        fixed["protocol"] = rng.choice((0, PROTOCOL + 1, -1, 2**63))
    if rng.random() < 0.3:
        fixed["cluster"] = rng.choice(("", "another", "c" * 3000, "a\nb"))
    return _Made(
        draft.opening(draft.role() if rng.random() < 0.3 else "nobody"),
        [frame(packed(sampler.message(kind, **fixed)))],
    )


def _join(draft: _Draft) -> _Made:
    """Joins that must not be: of an earlier life of a member, of another cluster, with no address, weight or name."""
    rng, members = draft.rng, draft.facts.state.members
    fixed: dict[str, object] = {"version": 0}
    if members and rng.random() < 0.5:
        known = members[rng.choice(list(members))].replica
        fixed |= {"node": known.node, "incarnation": known.incarnation - rng.randrange(1, 10**6)}
    match rng.randrange(5):
        case 0:
            fixed["address"] = rng.choice(
                ("", ":", "nowhere", "127.0.0.1:99999", "a:b:c", "[::1", "x" * 2000 + ":1")
            )
        case 1:
            fixed["weight"] = rng.choice((0, -1, 101, 2**40))
        case 2:
            fixed["node"] = rng.choice(("", "a/b", "-x", "n" * 64, "N1\n", "Ñ1"))
        case 3:
            fixed["cluster"] = rng.choice(("another", "x" * 3000))
    message = frame(packed(draft.plain.message(NAMED["Join"], **fixed)))
    after = frame(
        packed(
            draft.plain.message(
                NAMED[rng.choice(("Heartbeat", "SlotRequests", "Join", "Leave", "Drain", "Undrain"))],
                version=0,
            )
        )
    )
    return _Made(b"", [message, after])


def _spoken(draft: _Draft, role: Role, sampler: Sampler) -> bytes:
    """A message that this role may send at this port."""
    if role == "peer":
        return frame(packed(sampler.message(NAMED[draft.rng.choice(_PEER_MESSAGES)])))
    names = (
        _CLIENT_MESSAGES
        if draft.is_node
        else ("GetState", "GetStatus", "GetEvents", "Probe", "Drain", "Undrain")
    )
    return frame(packed(sampler.message(NAMED[draft.rng.choice(names)])))


def _client(draft: _Draft) -> _Made:
    """A client that takes what it can get and lies about the rest: sessions, acquisitions and digests of others."""
    return _Made(draft.opening("client"), draft.several(lambda: _spoken(draft, "client", draft.plain), 30))


def _peer(draft: _Draft) -> _Made:
    """An unknown node replicates slots that it does not own, in reigns that are, were or never will be."""
    if not draft.is_node:
        return _join(draft)
    return _Made(draft.opening("peer"), draft.several(lambda: _spoken(draft, "peer", draft.plain), 20))


def _huge(draft: _Draft) -> _Made:
    """Lists as long as a frame may be."""
    rng = draft.rng
    count = rng.choice((5_000, 50_000, 150_000))
    session = f"hostile-{rng.randrange(100)}"
    if rng.random() < 0.2:
        sample: list[Any] = [
            12,
            1,
            session,
            8000,
            "o",
            2**40,
            1,
            1,
            [],
            [[rng.randrange(4096), [[n, "x"] for n in range(count)]]],
        ]
    elif rng.random() < 0.7:
        sample = [12, 1, session, 8000, "o", 2**40, 1, 1, [[n % 4200, 1, 1] for n in range(count)]]
    else:
        sample = [10, 1, session, 8000, "o" * 256, 1, "n" * count]
    return _Made(draft.opening("client"), [frame(packed(sample))])


def _slow(draft: _Draft) -> _Made:
    """Half a frame and then silence, or a frame byte by byte."""
    rng = draft.rng
    whole = draft.opening("client") if rng.random() < 0.6 else draft.frame_of(draft.plain)
    if rng.random() < 0.5:
        return _Made(b"", [whole[: rng.randrange(0, len(whole))]], "silence")
    return _Made(b"", [whole[:200]], "reset", 0.01)


def _fleeting(draft: _Draft) -> _Made:
    """A connection that is gone as soon as it is there."""
    return _Made(
        b"", [draft.rng.choice((b"", b"\x00", draft.opening("client")))], draft.rng.choice(("reset", "close"))
    )


_MAKERS: Final[dict[str, tuple[float, Callable[[_Draft], _Made]]]] = {
    "noise": (8, _noise),
    "truncated": (6, _truncated),
    "oversized": (6, _oversized),
    "mutated": (16, _mutated),
    "misshapen": (14, _misshapen),
    "extreme": (5, _extreme),
    "misplaced": (9, _misplaced),
    "hello": (7, _hello),
    "join": (4, _join),
    "client": (4, _client),
    "peer": (4, _peer),
    "huge": (0.5, _huge),
    "slow": (1.0, _slow),
    "fleeting": (4, _fleeting),
}
"""Kinds of conversations, each with how often it is held relative to the others."""

KINDS: Final = tuple(_MAKERS)
