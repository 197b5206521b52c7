"""A single question to something that may be no server of lockring's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lockring.errors import ProtocolError
from lockring.ids import NO_REQUEST
from lockring.net.frames import encode_frame
from lockring.net.oneshot import ask_status
from lockring.protocol import Refusal
from tests.processes import PATIENCE_S


@contextmanager
def server_that_answers(data: bytes) -> Iterator[str]:
    """Something that accepts one connection, and answers these bytes to whatever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it ended the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "frame of 1213486160 bytes exceeds"),
        (b"\x00\x00\x00\x05hello", "not an accepted message"),
    ],
)
def test_another_kind_of_server_is_named_as_such(data: bytes, reason: str) -> None:
    with (
        server_that_answers(data) as address,
        pytest.raises(ProtocolError, match=f"^{address} is not a lockring server: {reason}"),
    ):
        ask_status(address, timeout_s=PATIENCE_S)


def test_a_server_that_refuses_the_question_as_malformed_is_one_of_lockrings_nevertheless() -> None:
    refusal = encode_frame(Refusal(NO_REQUEST, ProtocolError.code, "this port is for nodes"))
    with (
        server_that_answers(refusal) as address,
        pytest.raises(ProtocolError, match=r"^this port is for nodes$"),
    ):
        ask_status(address, timeout_s=PATIENCE_S)
