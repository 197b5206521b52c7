"""A single question to something that may be no server of lockring's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lockring.errors import ProtocolError, Unavailable
from lockring.ids import NO_CLUSTER, NO_REQUEST, Incarnation, NodeId, Version
from lockring.net.frames import encode_frame
from lockring.net.oneshot import ask_status
from lockring.net.server_line import ask_roll
from lockring.protocol import PROTOCOL, Refusal, Welcome
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


class Silence:
    """A connection that greets or does not, and then ends each wait with an error of the system."""

    def __init__(self, error: OSError, *, greets: bool) -> None:
        self._error = error
        welcome = Welcome(PROTOCOL, NO_CLUSTER, "node", NodeId("n1"), Incarnation(1), Version(1))
        self._rest = [encode_frame(welcome)] if greets else []
        self.is_closed = False

    def settimeout(self, timeout_s: float | None, /) -> None:
        """Do nothing."""

    def sendall(self, data: bytes, /) -> None:
        """Do nothing."""

    def recv(self, size: int, /) -> bytes:
        """Return the greeting once."""
        if self._rest:
            return self._rest.pop()
        raise self._error

    def close(self) -> None:
        """Note the end."""
        self.is_closed = True


@pytest.mark.parametrize("ask", [ask_status, ask_roll])
@pytest.mark.parametrize(("greets", "reason"), [(False, "unreachable"), (True, "silent")])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TimeoutError(), "h:1 did not answer within 5 s"),
        (ConnectionResetError(104, "Connection reset by peer"), "h:1 cannot be reached: connection reset"),
    ],
    ids=["timeout", "reset"],
)
def test_a_server_that_has_greeted_is_silent_and_another_one_unreachable(
    ask: Callable[..., object], greets: bool, reason: str, error: OSError, text: str
) -> None:
    silence = Silence(error, greets=greets)
    with pytest.raises(Unavailable, match=f"^{text}") as caught:
        ask("h:1", timeout_s=5, dial=lambda address, timeout_s: silence)
    assert caught.value.reason == reason
    assert caught.value.__cause__ is error, "it is the system that has ended it, and no answer"
    assert silence.is_closed


@pytest.mark.parametrize("ask", [ask_status, ask_roll])
@pytest.mark.parametrize("error", [TimeoutError(), ConnectionRefusedError(111, "Connection refused")])
def test_a_server_to_which_there_is_no_connection_is_unreachable(
    ask: Callable[..., object], error: OSError
) -> None:
    def dial(address: str, timeout_s: float) -> Silence:
        raise error

    with pytest.raises(Unavailable) as caught:
        ask("h:1", timeout_s=5, dial=dial)
    assert caught.value.reason == "unreachable"
    assert caught.value.__cause__ is error
