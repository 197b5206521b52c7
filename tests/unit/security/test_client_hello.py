"""The server name in a first message is found, whatever the pieces that the message comes in."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.security.client_hello import AskedName, asked_name
from lockring.security.tls_contexts import PEER_NAME

NAMES = [PEER_NAME, "localhost", "a.example", "10.0.0.1", ""]


def hello(name: str, *, version: ssl.TLSVersion | None = None) -> bytes:
    """The first message of the library's client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if version is not None:
        context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name or None)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLOS = {name: hello(name) for name in NAMES}


def in_records(data: bytes, cuts: list[int]) -> bytes:
    """The same message in other records."""
    message, ends = data[5:], sorted({cut % len(data[5:]) for cut in cuts} - {0})
    parts = [message[begin:end] for begin, end in zip([0, *ends], [*ends, len(message)], strict=True)]
    return b"".join(data[:3] + len(part).to_bytes(2, "big") + part for part in parts)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_found(name: str, version: ssl.TLSVersion) -> None:
    # The library sends no address as a name.
    assert asked_name(hello(name, version=version)) == AskedName(True, "" if name == "10.0.0.1" else name)


@given(st.sampled_from([PEER_NAME, "localhost"]), st.lists(st.integers(0, 600), max_size=7))
def test_the_name_is_known_once_the_message_is_complete_and_not_before(name: str, cuts: list[int]) -> None:
    data = in_records(HELLOS[name], cuts)
    for end in range(len(data)):
        assert asked_name(data[:end]) == AskedName(False)
    assert asked_name(data) == asked_name(data + b"more") == AskedName(True, name)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x00\x00\x00\x2a",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        HELLOS[PEER_NAME].replace(b"server.lock", b"s\x80rver.lock"),
    ],
)
def test_a_message_that_is_malformed_has_no_name(data: bytes) -> None:
    assert asked_name(data) == AskedName(True, "")


@given(st.integers(0, 600), st.integers(0, 255))
def test_a_wrong_byte_gives_a_name_or_none_and_no_error(at: int, byte: int) -> None:
    data = bytearray(HELLOS[PEER_NAME])
    data[at % len(data)] = byte
    found = asked_name(bytes(data))
    assert found.name in ("", PEER_NAME) or len(found.name) <= len(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_name_or_none_and_no_error(data: bytes) -> None:
    assert isinstance(asked_name(data), AskedName)
    assert isinstance(asked_name(b"\x16\x03\x01\x00" + bytes([len(data)]) + data), AskedName)


def test_a_message_in_many_pieces_is_given_up_after_a_few() -> None:
    piece = b"\x16\x03\x01\x00\x01\x01"
    assert asked_name(piece * 3) == AskedName(False)
    assert asked_name(piece * 9) == AskedName(True, "")
