"""Messages made from the definitions in `lockring.protocol`, so that a new message is covered by itself.

A sample is the nested list that msgpack makes of a message: `[tag, field, …]`. What is wrong on purpose is put
into it as ready-made msgpack (`msgspec.Raw`), which no encoder would write.
"""

from __future__ import annotations

import random
import struct
import typing
from typing import Any, Final

import msgspec
from msgspec import inspect

from lockring import protocol
from lockring.cluster_state import ClusterState, Replica, decode_state, encode_state
from lockring.errors import ProtocolError
from lockring.net.frames import HEADER_BYTES
from lockring.protocol import PROTOCOL

SESSIONS: Final = 300
LOCKS: Final = 400
CLIENTS: Final = 60

TYPES: Final[list[inspect.StructType]] = [
    typing.cast(inspect.StructType, inspect.type_info(each))
    for each in dict.fromkeys(
        typing.get_args(protocol.ToNode)
        + typing.get_args(protocol.ToCoordinator)
        + typing.get_args(protocol.ToClient)
        + typing.get_args(protocol.FromCoordinator)
        + typing.get_args(protocol.FromPeer)
    )
]
"""Every message of the protocol, in either direction."""

NAMED: Final = {each.cls.__name__: each for each in TYPES}

_INTS: Final = [
    *(
        sign * (2**bits + off)
        for bits in (7, 8, 15, 16, 31, 32, 53, 62)
        for off in (-1, 0)
        for sign in (1, -1)
    ),
    *(0, -1, -2, 4095, 4096, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 30_001, 99, 100),
    315_360_000_000,
    315_360_000_001,
]
_TEXTS: Final = [
    "",
    " ",
    "\0",
    "a\nb",
    "x\n00:00:00.000 error: this line was written by a stranger\nTraceback (most recent call last):",
    "\x1b[2J\x1b[31m",
    "\u202e\ufeff\u2028",
    "%s%n{0}{x.__class__}",
    "é" * 512,
    "é" * 513,
    "n" * 1024,
    "n" * 1025,
    "o" * 257,
    "s" * 64,
    "s" * 65,
    "🔒" * 256,
    "../../etc/passwd",
    "127.0.0.1:0",
    "[::1]:70000",
    "http://127.0.0.1:1",
    ":1",
]
_SMALL: Final = {
    "protocol": [PROTOCOL],
    "ttl_ms": [100, 1000, 4000, 8000],
    "wait_ms": [-1, 0, 0, 10, 300],
    "waited_ms": [0, 0, 5, 10_000],
    "mode": [0, 0, 1, 2],
    "permits": [1, 1, 3],
    "weight": [1, 100],
    "limit": [1, 100, 10_000],
    "from_slot": [0, 0, 4095],
    "kind": [0, 1, 2, 3],
}
_WRONG: Final[list[object]] = [
    None,
    True,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
    "text",
    b"bytes",
    {},
    {"a": 1},
    [],
    [[[]]],
    msgspec.Raw(b"\xa3\xff\xfe\xfd"),  # text that is not UTF-8
    msgspec.Raw(b"\xa3\xed\xa0\x80"),  # a lone surrogate
    msgspec.Raw(b"\xdd\xff\xff\xff\xff"),  # an array of 4 billion
    msgspec.Raw(b"\xdf\xff\xff\xff\xff"),  # a map of 4 billion
    msgspec.Raw(b"\xdb\xff\xff\xff\xf0"),  # a text of 4 GiB
    msgspec.Raw(b"\xc6\xff\xff\xff\xf0"),  # bytes, 4 GiB of them
    msgspec.Raw(b"\xc9\xff\xff\xff\xf0\x01"),  # an extension
    msgspec.Raw(b"\xd6\xff\x00\x00\x00\x01"),  # a timestamp
    msgspec.Raw(b"\xc1"),  # never used
    msgspec.Raw(b"\xca\x7f\xc0\x00\x00"),  # not a number, in 32 bits
    msgspec.Raw(b"\x91" * 3000 + b"\x00"),
    msgspec.Raw(b"\x81\xa1a" * 1500 + b"\x00"),
]


class Facts(msgspec.Struct, frozen=True):
    """The facts that a stranger can learn of the cluster behind a port, by asking.

    Attributes:
        state: the cluster's.
        me: the node at the port; of a coordinator an empty one.
        held: names of locks that an honest client holds.
        tokens: those that strangers show now and then.
        is_guarded: whether the port demands rights, so that no order of a stranger is followed.
    """

    state: ClusterState
    me: Replica
    held: tuple[str, ...]
    tokens: tuple[str, ...] = ()
    is_guarded: bool = False


class Sampler:
    """Draws messages. What it draws follows from the generator of random numbers alone.

    Args:
        rng: where the choices come from.
        facts: what is true at the port.
        extreme: probability of an extreme value of its type for a leaf.
        wrong: probability of a value of another type.
    """

    def __init__(self, rng: random.Random, facts: Facts, *, extreme: float = 0.0, wrong: float = 0.0) -> None:
        self._rng = rng
        self._facts = facts
        self._extreme = extreme
        self._wrong = wrong

    def message(self, kind: inspect.StructType, **fixed: object) -> list[Any]:
        """One message of this type; `fixed` gives fields their value."""
        return self._struct(kind, fixed)

    def any_message(self) -> list[Any]:
        """One message of any type there is."""
        return self._struct(self._rng.choice(TYPES), {})

    def _struct(self, kind: inspect.StructType, fixed: dict[str, object]) -> list[Any]:
        values = [fixed[each.name] if each.name in fixed else self._field(each) for each in kind.fields]
        return values if kind.tag is None else [kind.tag, *values]

    def _field(self, field: inspect.Field) -> Any:
        return self._value(field.type, field.name)

    def _value(self, kind: inspect.Type, name: str) -> Any:
        chance = self._rng.random()
        if chance < self._wrong:
            return self._rng.choice(_WRONG)
        is_extreme = chance < self._wrong + self._extreme
        match kind:
            case inspect.IntType():
                return self._rng.choice(_INTS) if is_extreme else self._int(name)
            case inspect.StrType():
                return self._rng.choice(_TEXTS) if is_extreme else self._text(name)
            case inspect.BoolType():
                return self._rng.random() < 0.5
            case inspect.BytesType():
                return self._bytes()
            case inspect.NoneType():
                return None
            case inspect.LiteralType(values=values):
                return self._rng.choice(_TEXTS) if is_extreme else self._rng.choice(values)
            case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
                count = self._rng.choice((0, 1, 1, 2, 5, 40 if is_extreme else 8))
                return [self._value(item, name) for _ in range(count)]
            case inspect.TupleType(item_types=items):
                return self._tuple(items)
            case inspect.StructType():
                return self._struct(kind, {})
            case inspect.UnionType(types=types):
                return self._value(self._rng.choice(types), name)
        raise AssertionError(f"a message has a field of a new kind, {kind}: teach the sampler to draw it")

    def _tuple(self, items: tuple[inspect.Type, ...]) -> list[Any]:
        # Tuples of the wire begin with a node; their other parts have no names.
        return [self._value(each, "node" if at == 0 else "name") for at, each in enumerate(items)]

    def _int(self, name: str) -> int:
        rng, facts = self._rng, self._facts
        if name in _SMALL:
            return rng.choice(_SMALL[name])
        match name:
            case "slot":
                return rng.randrange(4096)
            case "version":
                return rng.choice((0, facts.state.version, facts.state.version - 1, facts.state.version + 1))
            case "incarnation" | "to_incarnation":
                return rng.choice([each.replica.incarnation for each in facts.state.members.values()] or [1])
            case "since" | "joined" | "epoch" | "base" | "ended_since":
                slot = rng.choice(facts.state.slots)
                return rng.choice((slot.since, slot.backup.joined if slot.backup else 0, slot.epoch))
            case "acquisition" | "through" | "count" | "reached":
                return rng.randrange(1, 40)
        return rng.randrange(2000)

    def _text(self, name: str) -> str:
        rng, facts = self._rng, self._facts
        match name:
            case "cluster":
                return facts.state.cluster
            case "node" | "to_node" | "primary":
                return rng.choice([*facts.state.members, "N9"])
            case "session":
                return f"hostile-{rng.randrange(SESSIONS)}"
            case "client":
                return f"stranger-{rng.randrange(CLIENTS)}"
            case "address" | "coordinator":
                return "127.0.0.1:1"
            case "prefix":
                return rng.choice(("", "hostile/", "honest/"))
        if facts.held and rng.random() < 0.2:
            return rng.choice(facts.held)
        return f"hostile/{rng.randrange(LOCKS)}"

    def _bytes(self) -> bytes:
        """A cluster state that is not quite one."""
        rng = self._rng
        if rng.random() < 0.3:
            return rng.randbytes(rng.choice((0, 1, 30, 3000)))
        return flipped(rng, encode_state(self._facts.state), rng.choice((1, 1, 3, 20)))


def packed(sample: Any) -> bytes:
    """The sample as the body of a frame."""
    return msgspec.msgpack.encode(sample)


def frame(body: bytes) -> bytes:
    """A body with its header."""
    return struct.pack(">I", len(body)) + body


def flipped(rng: random.Random, data: bytes, times: int) -> bytes:
    """Some bits changed, or bytes set, inserted or taken out."""
    changed = bytearray(data)
    for _ in range(times):
        if not changed:
            break
        at = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0 | 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                changed[at] = rng.choice(b"\x00\x7f\x80\x90\x9f\xa0\xc0\xc1\xcb\xcf\xd3\xdb\xdd\xdf\xff")
            case 3:
                changed.insert(at, rng.randrange(256))
            case _:
                del changed[at]
    return bytes(changed)


_server = msgspec.msgpack.Decoder[Any](protocol.ToNode | protocol.ToCoordinator)


def understood(data: bytes) -> list[protocol.Message]:
    """The messages that a server would read from these bytes, up to the first that is none."""
    found: list[protocol.Message] = []
    while len(data) >= HEADER_BYTES:
        end = HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "big")
        if end > len(data):
            break
        try:
            found.append(_server.decode(data[HEADER_BYTES:end]))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            break
        data = data[end:]
    return found


def is_command(message: protocol.Message, facts: Facts) -> bool:
    """Whether a message is in order and in its role, and so would rightly change the cluster or end an honest grant.

    Without identities, any sender of one of these is obeyed. They are not garbage, and are kept out. A port with rights
    gets them too.
    """
    if facts.is_guarded:
        return False
    state = facts.state
    match message:
        case protocol.Join():
            known = state.members.get(message.node)
            outlived = known is not None and message.incarnation < known.replica.incarnation
            return message.cluster in ("", state.cluster) and not (
                outlived and message.version in (0, state.version)
            )
        case protocol.Drain() | protocol.Undrain():
            return message.node in state.members
        case protocol.State():
            try:
                return decode_state(message.state).cluster == state.cluster
            except (ProtocolError, ValueError):
                return False
        case protocol.PeerHello():
            return state.is_current(Replica(message.node, message.incarnation))
        case protocol.Break():
            return message.name in facts.held
    return False
