"""Inputs for a port with gRPC: frames of HTTP/2, and calls of each method with messages made from its description."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from lockring.grpc_api.v1 import lockring_pb2 as pb
from tests.hostile import http2
from tests.hostile.samples import LOCKS, SESSIONS, Facts, flipped

_SERVICES: Final = (
    *(pb.DESCRIPTOR.services_by_name["LockService"],) * 8,
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
METHODS: Final = tuple(
    (f"/{service.full_name}/{method.name}", method.input_type)
    for service in _SERVICES
    for method in service.methods
)
"""Every method, by path, with the type of its requests; those of locks come up more often."""

_PATHS: Final = (
    *("/", "", "/lockring.v1.LockService/", "/lockring.v1.LockService/Secret", "/grpc.health.v1.Health/Set"),
    *("lockring.v1.LockService/Lock", "//lockring.v1.LockService/Lock", "/x" * 4000, "/\x00\xff"),
    b"/\xff\xfe",  # no text
)
_EXTREME_TEXTS: Final = (
    "",
    "\x00",
    "é" * 513,
    "n" * 1025,
    "s" * 70_000,
    "a\nb\x1b[31m",
    "%s{0}",
    "group:hostile/1",
)
_EXTREME_NUMBERS: Final = (0, 1, -1, 99, 30_001, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), 2**64 - 1)
_BOMB: Final = gzip.compress(bytes(8 * 1024 * 1024))
_FIELDS_OF_INTS: Final = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


class Calls:
    """Draws inputs. What it draws follows from the generator of random numbers alone.

    Args:
        rng: where the choices come from.
        facts: what is true at the port.
        credentials: the tokens that strangers show now and then.
    """

    def __init__(self, rng: random.Random, facts: Facts, credentials: tuple[str, ...]) -> None:
        self._rng = rng
        self._facts = facts
        self._credentials = credentials
        self._stream = -1

    def inputs(self) -> list[bytes]:
        """Return the inputs of a conversation."""
        return self._rng.choice(_MAKERS)(self)

    def one(self) -> bytes:
        """Return one input that could stand anywhere."""
        return http2.PREFACE + http2.frame(http2.SETTINGS, 0) + self._call()

    # ----------------------------------------------------------------------- makers

    def calls(self) -> list[bytes]:
        """Make calls that are in order."""
        return self._begun([self._call() for _ in range(self._rng.randint(1, 12))])

    def extreme(self) -> list[bytes]:
        """Make calls with numbers and texts at, and beyond, every bound."""
        return self._begun([self._call(extreme=0.3) for _ in range(self._rng.randint(1, 8))])

    def mutated(self) -> list[bytes]:
        """Make calls whose messages, or whose frames, are damaged."""
        rng = self._rng
        if rng.random() < 0.6:
            return self._begun([self._call(damage=rng.choice((1, 2, 8))) for _ in range(rng.randint(1, 6))])
        return self._begun([flipped(rng, self._call(), rng.choice((1, 1, 4)))])

    def truncated(self) -> list[bytes]:
        """Break off in the middle of a call."""
        whole = self._call()
        return self._begun([self._call(), whole[: self._rng.randrange(1, len(whole))]])

    def misframed(self) -> list[bytes]:
        """Send frames of any kind, with any flags, on any stream."""
        rng = self._rng
        found = []
        for _ in range(rng.randint(1, 12)):
            payload = rng.randbytes(rng.choice((0, 4, 5, 6, 8, 100, 16_384)))
            announced = rng.choice((None, None, None, 0, 16_385, 2**24 - 1))
            stream = rng.choice((0, 1, 2, 3, 2**31 - 1))
            found.append(
                http2.frame(rng.randrange(12), stream, payload, flags=rng.randrange(256), announced=announced)
            )
        return self._begun(found) if rng.random() < 0.8 else found

    def oversized(self) -> list[bytes]:
        """Announce, or send, more than a message may have; also by compression."""
        rng = self._rng
        path, _ = rng.choice(METHODS)
        match rng.randrange(4):
            case 0:
                body = http2.message(b"x" * 10, announced=rng.choice((2**31, 2**32 - 1, 2 * 2**20 + 1)))
            case 1:
                body = http2.message(bytes(3 * 2**20))
            case 2:
                body = http2.message(_BOMB, is_compressed=True)
            case _:
                body = http2.message(rng.randbytes(100), is_compressed=True)
        encoding = ((b"grpc-encoding", rng.choice((b"gzip", b"gzip", b"deflate", b"identity", b"x"))),)
        return self._begun([self._raw_call(path, body, encoding)])

    def credentials(self) -> list[bytes]:
        """Show credentials of every kind, or two at once."""
        rng = self._rng
        odd = (b"Basic eDp4", b"Bearer", b"Bearer ", b"bearer \xff\x00", b"x" * 20_000, b"")
        found = []
        for _ in range(rng.randint(1, 6)):
            shown = [(b"authorization", rng.choice(odd)) for _ in range(rng.choice((1, 1, 2)))]
            if rng.random() < 0.3:
                shown.append((b"authorization-bin", b"AAAA"))
            found.append(self._call(shown=shown))
        return self._begun(found)

    def lost(self) -> list[bytes]:
        """Call methods that there are not, or in no way."""
        rng = self._rng
        path = rng.choice(_PATHS)
        odd = rng.choice(
            (
                (),
                ((b":path", b"/twice"),),
                ((b"connection", b"close"),),
                ((b"grpc-timeout", b"99999999999H"),),
                ((b"X-Upper", b"1"),),
            )
        )
        return self._begun([self._raw_call(path, http2.message(rng.randbytes(rng.choice((0, 20)))), odd)])

    def floods(self) -> list[bytes]:
        """Send very many small frames: pings, settings, calls that are reset at once, headers without an end."""
        rng = self._rng
        count = rng.choice((50, 400))
        match rng.randrange(5):
            case 0:
                return self._begun([http2.frame(http2.PING, 0, bytes(8)) * count])
            case 1:
                return self._begun([http2.frame(http2.SETTINGS, 0) * count])
            case 2:
                reset = (8).to_bytes(4, "big")
                calls = (self._call() + http2.frame(http2.RESET, self._stream, reset) for _ in range(count))
                return self._begun([b"".join(calls)])
            case 3:
                begun = http2.frame(http2.HEADERS, 1, http2.header_block([(b"x", b"y")]))
                more = http2.frame(http2.CONTINUATION, 1, http2.header_block([(b"x" * 100, b"y" * 100)]))
                return self._begun([begun, more * count])
            case _:
                grown = (2**31 - 1).to_bytes(4, "big")
                return self._begun([http2.frame(http2.WINDOW_UPDATE, rng.choice((0, 1)), grown) * 3])

    # ----------------------------------------------------------------------- inner

    def _begun(self, inputs: list[bytes]) -> list[bytes]:
        head = http2.PREFACE + http2.frame(http2.SETTINGS, 0)
        return [head + inputs[0], *inputs[1:]]

    def _call(
        self, *, extreme: float = 0.0, damage: int = 0, shown: list[tuple[bytes, bytes]] | None = None
    ) -> bytes:
        rng = self._rng
        path, kind = rng.choice(METHODS)
        bodies = []
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            body = self._message(kind, extreme).SerializeToString()
            bodies.append(http2.message(flipped(rng, body, damage) if damage else body))
        if shown is None:
            shown = []
            if self._credentials and rng.random() < 0.6:
                shown = [(b"authorization", b"Bearer " + rng.choice(self._credentials).encode())]
        return self._raw_call(path, b"".join(bodies), shown)

    def _raw_call(self, path: str | bytes, body: bytes, more: Any = ()) -> bytes:
        self._stream += 2
        block = http2.call_headers(path if isinstance(path, bytes) else path.encode(), more)
        found = http2.frame(http2.HEADERS, self._stream, block, flags=http2.END_HEADERS)
        parts = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1 and self._rng.random() < 0.9
            found += http2.frame(http2.DATA, self._stream, part, flags=http2.END_STREAM if is_last else 0)
        return found

    def _message(self, kind: Descriptor, extreme: float, depth: int = 0) -> Any:
        made = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if self._rng.random() < 0.1:
                continue
            if field.message_type is not None:
                if depth > 2:
                    continue
                parts = [
                    self._message(field.message_type, extreme, depth + 1)
                    for _ in range(self._rng.choice((1, 1, 3)))
                ]
                if field.is_repeated:
                    getattr(made, field.name).extend(parts)
                else:
                    getattr(made, field.name).CopyFrom(parts[0])
            elif field.is_repeated:
                getattr(made, field.name).extend(self._value(field, extreme) for _ in range(2))
            else:
                setattr(made, field.name, self._value(field, extreme))
        return made

    def _value(self, field: FieldDescriptor, extreme: float) -> Any:
        rng = self._rng
        is_extreme = rng.random() < extreme
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return rng.choice(_EXTREME_TEXTS) if is_extreme else self._text(field.name)
            case FieldDescriptor.TYPE_BYTES:
                return rng.randbytes(rng.choice((0, 10, 5000 if is_extreme else 30)))
            case FieldDescriptor.TYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.TYPE_ENUM:
                return rng.randrange(4)
            case kind if kind in _FIELDS_OF_INTS:
                low, high = _FIELDS_OF_INTS[kind]
                number = rng.choice(_EXTREME_NUMBERS) if is_extreme else self._number(field.name)
                return min(max(number, low), high)
        raise AssertionError(
            f"a request has a field of a new kind, {field.full_name}: teach this module to draw it"
        )

    def _text(self, name: str) -> str:
        rng, facts = self._rng, self._facts
        match name:
            case "session":
                return f"hostile-{rng.randrange(SESSIONS)}"
            case "node":
                return rng.choice([*facts.state.members, "N9"])
            case "prefix":
                return rng.choice(("", "hostile/", "honest/"))
        if facts.held and rng.random() < 0.2:
            return rng.choice(facts.held)
        return f"hostile/{rng.randrange(LOCKS)}"

    def _number(self, name: str) -> int:
        rng = self._rng
        match name:
            case "ttl_ms":
                return rng.choice((100, 1000, 4000, 8000))
            case "wait_ms":
                return rng.choice((-1, 0, 0, 10, 300))
            case "permits":
                return rng.choice((0, 1, 1, 3))
            case "page_size":
                return rng.choice((0, 1, 100, 10_000))
        return rng.randrange(2000)


_MAKERS: Final[tuple[Callable[[Calls], list[bytes]], ...]] = (
    *(
        Calls.calls,
        Calls.calls,
        Calls.calls,
        Calls.extreme,
        Calls.extreme,
        Calls.mutated,
        Calls.mutated,
        Calls.mutated,
    ),
    *(
        Calls.truncated,
        Calls.misframed,
        Calls.misframed,
        Calls.oversized,
        Calls.credentials,
        Calls.lost,
        Calls.floods,
    ),
)
