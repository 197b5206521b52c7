"""The server name in the first message of a TLS connection, read before the library sees the message.

The library's own callback for it cannot change all that matters, and writes to standard error about each name that is
not ASCII, which any stranger can send. A message that is malformed has no name here: the library refuses it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_RECORD_BYTES_MAX: Final = 16 * 1024
_HELLO_BYTES_MAX: Final = 24 * 1024
_RECORDS_MAX: Final = 8
"""Pieces that the message may come in: all of them are put together again each time that bytes arrive."""


class AskedName(NamedTuple):
    """The name that a client asks for, as far as it is known.

    Attributes:
        is_known: whether the message is complete, or malformed, so that the name does not change any more.
        name: the name, "" for none.
    """

    is_known: bool
    name: str = ""


_UNKNOWN: Final = AskedName(False)
_NO_NAME: Final = AskedName(True)


def asked_name(data: bytes) -> AskedName:
    """Return the server name that the first bytes of a connection ask for.

    Args:
        data: all bytes so far.
    """
    try:
        hello = _hello(data)
        if hello is None:
            return _UNKNOWN
        return AskedName(True, _name_in(hello))
    except (IndexError, ValueError):
        return _NO_NAME


def _hello(data: bytes) -> bytes | None:
    """Return the body of a ClientHello, None if it is not complete.

    Raises:
        ValueError: it is something else.
    """
    message, at, records = b"", 0, 0
    while at + 5 <= len(data):
        records += 1
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] != _HANDSHAKE or not 0 < size <= _RECORD_BYTES_MAX or records > _RECORDS_MAX:
            raise ValueError(data[at])
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != _CLIENT_HELLO:
            raise ValueError(message[0])
        if len(message) >= 4:
            length = int.from_bytes(message[1:4], "big")
            if length > _HELLO_BYTES_MAX:
                raise ValueError(length)
            if len(message) >= 4 + length:
                return message[4 : 4 + length]
    if at < len(data) and data[at] != _HANDSHAKE:
        raise ValueError(data[at])
    return None


def _name_in(hello: bytes) -> str:
    """Return the host name in a ClientHello, "" if it has none.

    Raises:
        IndexError, ValueError: it is malformed.
    """
    body = _Bytes(hello)
    body.take(2 + 32)  # version and random
    body.take_sized(1)  # session
    body.take_sized(2)  # ciphers
    body.take_sized(1)  # compressions
    if body.is_over:
        return ""
    extensions = _Bytes(body.take_sized(2))
    while not extensions.is_over:
        kind = int.from_bytes(extensions.take(2), "big")
        content = _Bytes(extensions.take_sized(2))
        if kind == _SERVER_NAME:
            names = _Bytes(content.take_sized(2))
            while not names.is_over:
                kind_of_name = names.take(1)[0]
                name = names.take_sized(2)
                if kind_of_name == _HOST_NAME:
                    return name.decode("ascii")
    return ""


class _Bytes:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at >= len(self._data)

    def take(self, count: int) -> bytes:
        """Return the next bytes; raises `ValueError` if there are not as many."""
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise ValueError(count)
        self._at += count
        return found

    def take_sized(self, size_bytes: int) -> bytes:
        """Return the next bytes, whose number stands before them in so many bytes."""
        return self.take(int.from_bytes(self.take(size_bytes), "big"))
