"""The machine itself, in turn with the servers: a round trip between processes, without TLS and with it, and a sync of
its disk.

A round trip of 64 bytes between two Python processes with blocking sockets is the floor: no lock that a server on this
machine keeps can be acquired faster. A sync is 64 bytes appended to a file, then `fdatasync`. Both move with the
machine's mood, so they have slices of their own between those of the servers.

A pair's bytes are those of a lock and its release: two messages and two answers, as long as lockring's. With TLS they
go through blocking sockets of Python's `ssl`, with certificates on both sides. The rest of a server's pair is its own
work.
"""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.children import Child, Inbox, settle
from bench.figures import latencies
from bench.results import Values
from bench.workloads.base import RESUME_S, OneChild, Outcome, Runner

FLOOR: Final = "floor"
PAIR: Final = "pair"
TLS_PAIR: Final = "TLS pair"
SYNC: Final = "a sync"

_SLICE_S: Final = 0.1
_RECORD: Final = b"x" * 64
_MESSAGES: Final = ((68, 17), (38, 10))
"""The lengths of acquire and its answer, and of release and its answer, as `tests/unit/work` bounds them."""


class Beside(NamedTuple):
    """A measure of the machine.

    Attributes:
        title: its name in the tables.
        begin: takes the cores of the servers, () for any, and the directory of their files; returns a runner.
    """

    title: str
    begin: Callable[[tuple[int, ...], Path], Runner]


class Exchange(Runner):
    """Two processes: one asks, and the other answers.

    Args:
        other: the process that answers, and first says its port.
        asker: takes the port, and returns the process that asks.
        certificates: a directory that is removed with them.
    """

    def __init__(
        self,
        other: Child[None],
        asker: Callable[[int], Child[Values]],
        certificates: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self._other = other
        self._certificates = certificates
        try:
            self._asker = OneChild(asker(other.hear()))
        except BaseException:
            self._close_other()
            raise

    def slice(self) -> Values:
        """Exchange messages for a slice, and return the figures of one exchange."""
        return self._asker.slice()

    def total(self) -> Outcome:
        """Return the figures of all slices together."""
        return self._asker.total()

    def pids(self) -> tuple[int, ...]:
        """Return both processes."""
        return (self._other.pid, *self._asker.pids())

    def close(self) -> None:
        """End both processes."""
        self._asker.close()
        self._close_other()

    def _close_other(self) -> None:
        self._other.close()
        if self._certificates is not None:
            self._certificates.cleanup()


def _floor(cores: tuple[int, ...], directory: Path) -> Runner:
    """Return a process that sends, and another one that echoes it."""
    del directory
    return Exchange(Child(_echo, cores), lambda port: Child(_ask, port, cores))


def _pair(cores: tuple[int, ...], directory: Path) -> Runner:
    """Return two processes that exchange the bytes of a lock and its release."""
    del directory
    return Exchange(Child(_answer_pairs, cores, None), lambda port: Child(_ask_pairs, port, cores, None))


def _tls_pair(cores: tuple[int, ...], directory: Path) -> Runner:
    """Return the same through TLS, with the certificates in a directory."""
    place = tempfile.TemporaryDirectory(dir=directory)
    issued = _issued(Path(place.name))
    return Exchange(
        Child(_answer_pairs, cores, issued), lambda port: Child(_ask_pairs, port, cores, issued), place
    )


class _Certificates(NamedTuple):
    """The files of both sides."""

    ca: str
    server: tuple[str, str]
    client: tuple[str, str]


def _issued(directory: Path) -> _Certificates:
    """Make the certificates of both sides."""
    from lockring.security.certs import CertMaker  # needs an extra, and only here

    maker = CertMaker(directory)
    maker.authorities()
    server, client = maker.server(["127.0.0.1"]), maker.client("bench")
    return _Certificates(
        str(directory / "ca.pem"), (str(server.cert), str(server.key)), (str(client.cert), str(client.key))
    )


def _context(certificates: _Certificates, *, is_server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(*(certificates.server if is_server else certificates.client))
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _sync(cores: tuple[int, ...], directory: Path) -> Runner:
    """Return a runner that syncs a file in a directory."""
    return OneChild(Child(_append, cores, directory))


def _echo(inbox: Inbox, cores: tuple[int, ...]) -> None:
    settle(cores)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.say(listener.getsockname()[1])
        sock, _ = listener.accept()
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := sock.recv(len(_RECORD)):
                sock.sendall(data)


def _ask(inbox: Inbox, port: int, cores: tuple[int, ...]) -> Values:
    settle(cores)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def round_trip() -> None:
            sock.sendall(_RECORD)
            sock.recv(len(_RECORD))

        return _in_slices(inbox, round_trip)


def _answer_pairs(inbox: Inbox, cores: tuple[int, ...], certificates: _Certificates | None) -> None:
    settle(cores)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inbox.say(listener.getsockname()[1])
        sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if certificates is not None:
        sock = _context(certificates, is_server=True).wrap_socket(sock, server_side=True)
    answers = [(asked, b"x" * answered) for asked, answered in _MESSAGES]
    with sock:
        while True:
            for asked, answer in answers:
                if not _read(sock, asked):
                    return
                sock.sendall(answer)


def _ask_pairs(inbox: Inbox, port: int, cores: tuple[int, ...], certificates: _Certificates | None) -> Values:
    settle(cores)
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if certificates is not None:
        sock = _context(certificates, is_server=False).wrap_socket(sock, server_hostname="127.0.0.1")
    questions = [(b"x" * asked, answered) for asked, answered in _MESSAGES]

    def pair() -> None:
        for question, answered in questions:
            sock.sendall(question)
            _read(sock, answered)

    with sock:
        return _in_slices(inbox, pair)


def _read(sock: socket.socket, length: int) -> int:
    """Read so many bytes, and return their number; 0 if the connection ends before."""
    left = length
    while left:
        data = sock.recv(left)
        if not data:
            return 0
        left -= len(data)
    return length


def _append(inbox: Inbox, cores: tuple[int, ...], directory: Path) -> Values:
    settle(cores)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        fd = file.fileno()

        def append() -> None:
            os.write(fd, _RECORD)
            os.fdatasync(fd)

        return _in_slices(inbox, append)


def _in_slices(inbox: Inbox, operation: Callable[[], None]) -> Values:
    """Repeat an operation in slices, as `OneChild` asks for, and return the figures of all of them."""

    def repeat(seconds: float) -> list[int]:
        clock_ns = time.perf_counter_ns
        samples_ns = []
        end_ns = clock_ns() + int(seconds * 1e9)
        now_ns = 0
        while now_ns < end_ns:
            begin_ns = clock_ns()
            operation()
            now_ns = clock_ns()
            samples_ns.append(now_ns - begin_ns)
        return samples_ns

    repeat(RESUME_S)
    inbox.say("ready")
    all_ns: list[int] = []
    while inbox.hear():
        repeat(RESUME_S)
        samples_ns = repeat(_SLICE_S)
        inbox.say(latencies(samples_ns))
        all_ns += samples_ns
    return latencies(all_ns)


BESIDE: Final = {
    FLOOR: Beside("a round trip of 64 bytes (the floor)", _floor),
    PAIR: Beside("the bytes of a pair, raw", _pair),
    TLS_PAIR: Beside("the bytes of a pair, raw TLS", _tls_pair),
    SYNC: Beside("64 bytes appended and synced", _sync),
}
