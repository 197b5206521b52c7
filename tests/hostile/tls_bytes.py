"""Bytes in place of a TLS handshake: messages made by hand, so that they follow from a generator of random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from lockring.security.tls_contexts import PEER_NAME
from tests.hostile.samples import flipped

_HANDSHAKE: Final = 22
_KINDS: Final = (20, 21, 22, 23, 24, 0, 255)
"""Change of cipher, alert, handshake, data, heartbeat, and two that there are not."""

_RECORD_BYTES_MAX: Final = 1 << 14

_OTHERS: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80" + b"\x07" * 34,  # a hello of SSL 2
    b"SSH-2.0-x\r\n",
    b"\x05\x01\x00",  # SOCKS
    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # PostgreSQL asks for TLS
    b"\x16",
    b"\x16\x03\x01",
    b"\x15\x03\x03\x00\x02\x02\x28",
)

TlsEnding = Literal["close", "reset", "silence"]


class TlsBytes(NamedTuple):
    """The bytes of a stranger in place of a handshake.

    Attributes:
        inputs: one after the other.
        ending: how it leaves: by closing or resetting the connection, or not until the server has had enough.
        byte_pause_s: if not 0, the pause after each single byte.
    """

    inputs: list[bytes]
    ending: TlsEnding
    byte_pause_s: float = 0.0


def hello(rng: random.Random, *, names: tuple[bytes, ...] = (b"localhost",), padding: int = 0) -> bytes:
    """Return a whole ClientHello without its record.

    Args:
        rng: where its random bytes come from.
        names: the server names that it asks for, each in an extension of its own.
        padding: bytes of an extension that fills it up.
    """
    extensions = b"".join(_extension(0, _sized(2, b"\x00" + _sized(2, name))) for name in names)
    extensions += _extension(10, _sized(2, b"\x00\x1d\x00\x17"))
    extensions += _extension(13, _sized(2, b"\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05"))
    extensions += _extension(43, _sized(1, b"\x03\x04\x03\x03"))
    extensions += _extension(51, _sized(2, b"\x00\x1d" + _sized(2, rng.randbytes(32))))
    if padding:
        extensions += _extension(21, bytes(padding))
    body = b"\x03\x03" + rng.randbytes(32) + _sized(1, rng.randbytes(32))
    body += _sized(2, b"\x13\x01\x13\x02\xc0\x2b\xc0\x2f") + b"\x01\x00" + _sized(2, extensions)
    return b"\x01" + _sized(3, body)


def record(content: bytes, *, kind: int = _HANDSHAKE, announced: int | None = None) -> bytes:
    """Return a record with this content; it may announce another length than it has."""
    length = len(content) if announced is None else announced
    return bytes([kind]) + b"\x03\x01" + length.to_bytes(2, "big") + content


def records(message: bytes, size: int) -> bytes:
    """Return a message of the handshake in records of this size."""
    return b"".join(record(message[at : at + size]) for at in range(0, len(message), size))


def hostile_bytes(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Return what a stranger sends.

    Args:
        rng: what it follows from.
        above: returns an input of the protocol above TLS, for one that sends it without.
    """
    return rng.choice(_MAKERS)(rng, above)


def _sized(bytes_of_size: int, content: bytes) -> bytes:
    return len(content).to_bytes(bytes_of_size, "big") + content


def _extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + _sized(2, content)


def _leaving(rng: random.Random) -> TlsEnding:
    return rng.choice(("close", "close", "reset", "reset", "silence"))


def _other(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Speak another protocol, or none."""
    data = rng.choice((rng.choice(_OTHERS), rng.randbytes(rng.choice((1, 3, 5, 40, 5000, 70_000))), above()))
    return TlsBytes([data], _leaving(rng))


def _truncated(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send a part of a ClientHello."""
    whole = records(hello(rng), 4096)
    return TlsBytes([whole[: rng.randrange(1, len(whole))]], _leaving(rng))


def _unfinished(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send a whole ClientHello, as it is or for servers, and nothing after it."""
    name = rng.choice((b"localhost", PEER_NAME.encode(), PEER_NAME.upper().encode()))
    return TlsBytes([record(hello(rng, names=(name,)))], _leaving(rng))


def _mutated(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Change some bits of a ClientHello, with or without its records."""
    message = hello(rng, names=(rng.choice((b"localhost", PEER_NAME.encode())),))
    times = rng.choice((1, 1, 3, 20))
    if rng.random() < 0.7:
        return TlsBytes([records(flipped(rng, message, times), 4096)], rng.choice(("close", "reset")))
    return TlsBytes([flipped(rng, record(message), times)], rng.choice(("close", "reset")))


def _named(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Ask for a server name that is none, or for several."""
    odd = (
        b"",
        b"\x00",
        b"\xff\xfe",
        "é🔒".encode(),
        b"a" * 300,
        b"n" * 16_000,
        b"..",
        b"%s\n{0}",
        b"localhost\x00",
    )
    names = tuple(
        rng.choice((*odd, PEER_NAME.encode(), b"localhost")) for _ in range(rng.choice((1, 1, 2, 5)))
    )
    return TlsBytes([records(hello(rng, names=names), _RECORD_BYTES_MAX)], rng.choice(("close", "reset")))


def _in_pieces(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Spread a ClientHello over many records, some of them empty, and over many writes."""
    whole = records(hello(rng, padding=rng.choice((0, 2000))), rng.choice((1, 7, 60)))
    if rng.random() < 0.3:
        whole = record(b"") * rng.choice((1, 40)) + whole
    step = rng.choice((1, 13, 200))
    return TlsBytes(
        [whole[at : at + step] for at in range(0, min(len(whole), 60 * step), step)], _leaving(rng)
    )


def _huge(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send records, or a ClientHello, as long as may be announced and longer than may be."""
    size = rng.choice((_RECORD_BYTES_MAX, _RECORD_BYTES_MAX + 1, 20_000, 65_535))
    match rng.randrange(3):
        case 0:
            data = record(rng.randbytes(size), kind=rng.choice(_KINDS)) * rng.choice((1, 8))
        case 1:
            data = records(hello(rng, padding=rng.choice((17_000, 40_000, 60_000))), _RECORD_BYTES_MAX)
        case _:
            data = (
                record(b"\x01\xff\xff\xff" + bytes(_RECORD_BYTES_MAX - 4))
                + record(bytes(_RECORD_BYTES_MAX)) * 40
            )
    return TlsBytes([data], rng.choice(("close", "reset")))


def _disordered(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send records of any kind, before a hello, after it, or without one; a second hello among them."""
    inputs = [
        record(
            rng.randbytes(rng.choice((0, 1, 2, 40, 3000))),
            kind=rng.choice(_KINDS),
            announced=rng.choice((None, None, 2)),
        )
        for _ in range(rng.randint(1, 6))
    ]
    if rng.random() < 0.7:
        inputs.insert(rng.randrange(len(inputs)), record(hello(rng)))
    if rng.random() < 0.4:
        inputs.append(record(hello(rng)))
    return TlsBytes(inputs, rng.choice(("close", "reset")))


def _then_plain(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send a ClientHello, and go on as if there were no TLS."""
    return TlsBytes(
        [record(hello(rng)), *(above() for _ in range(rng.randint(1, 4)))], rng.choice(("close", "reset"))
    )


def _slow(rng: random.Random, above: Callable[[], bytes]) -> TlsBytes:
    """Send nothing, or a ClientHello byte by byte."""
    if rng.random() < 0.3:
        return TlsBytes([b""], "silence")
    return TlsBytes([record(hello(rng))[: rng.randrange(20, 150)]], _leaving(rng), 0.01)


_MAKERS: Final = (
    *(
        _other,
        _other,
        _truncated,
        _truncated,
        _unfinished,
        _mutated,
        _mutated,
        _mutated,
        _mutated,
        _named,
        _named,
    ),
    *(_in_pieces, _huge, _disordered, _disordered, _disordered, _then_plain, _slow),
)
