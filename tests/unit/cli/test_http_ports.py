"""How the doctor asks an HTTP port: any answer, or none, is a value or a typed error in time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lockring.cli import doctor
from lockring.cli.client_settings import ClientSettings
from lockring.cli.http_ports import ask_http, is_out_of_reach
from lockring.errors import ProtocolError
from lockring.protocol import ServerStatus
from lockring.server.http_start import place_of

PATIENCE_S = 60.0


@contextmanager
def answering(*parts: bytes, ends: bool = True) -> Iterator[str]:
    """A port that answers its first connection with these bytes, and then ends it or stays silent."""
    done = threading.Event()

    def answer(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65_536)
            for each in parts:
                sock.sendall(each)
            if not ends:
                done.wait(PATIENCE_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            done.set()
            thread.join(PATIENCE_S)


def test_status_and_page_of_an_answer_are_read_though_it_comes_in_parts() -> None:
    with answering(b"HTTP/1.1 503 No\r\nContent-Le", b"ngth: 17\r\n\r\n[-] a\n", b"not ready\n\n") as where:
        found = ask_http(where, "/readyz", None, PATIENCE_S)
    assert (found.status, found.text, found.ends_at_s) == (503, "[-] a; not ready", None)


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"\0\0\0\1\x90", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", b"HTTP/1.1 2000 OK\r\n\r\n"],
)
def test_an_answer_that_is_none_is_a_typed_error(bytes_: bytes) -> None:
    with answering(bytes_) as where, pytest.raises(ProtocolError, match="it does not speak HTTP: "):
        ask_http(where, "/livez", None, PATIENCE_S)


def test_a_port_that_stays_silent_is_given_up_in_time() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n", ends=False) as where, pytest.raises(TimeoutError):
        ask_http(where, "/livez", None, 0.2)


@pytest.mark.parametrize(
    ("place", "server", "expected"),
    [
        ("127.0.0.1:9701", "192.0.2.1:9501", True),
        ("[::1]:9701", "192.0.2.1:9501", True),
        ("127.0.0.1:9701", "127.0.0.1:9501", False),
        ("127.0.0.1:9701", "localhost:9501", False),
        ("192.0.2.1:9701", "192.0.2.1:9501", False),
    ],
)
def test_the_loopback_address_of_another_machine_is_out_of_reach(
    place: str, server: str, expected: bool
) -> None:
    assert is_out_of_reach(place, server) is expected


@pytest.mark.parametrize(
    ("listening", "expected"),
    [
        ("0.0.0.0:9701", "n1.example:9701"),
        ("[::]:9701", "n1.example:9701"),
        ("127.0.0.1:9701", "127.0.0.1:9701"),
        ("http.example:9701", "http.example:9701"),
    ],
)
def test_http_at_all_addresses_is_named_by_the_host_of_its_server(listening: str, expected: str) -> None:
    assert place_of(listening, "n1.example:9501") == expected


def test_http_that_does_not_answer_or_has_no_address_is_a_warning() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # nothing listens there, and no other process can
        closed = f"127.0.0.1:{sock.getsockname()[1]}"
        statuses = {
            name: ServerStatus("node", name, 1, 7, http=place)  # type: ignore[arg-type]
            for name, place in (("127.0.0.1:1", closed), ("127.0.0.1:2", "no address"))
        }
        refused, garbled = doctor._about_http(statuses, ClientSettings(), PATIENCE_S)
    assert (refused.level, refused.subject) == ("warn", "127.0.0.1:1")
    assert refused.text.startswith(f"{closed} does not answer: ")
    assert (garbled.level, garbled.subject) == ("warn", "127.0.0.1:2")
