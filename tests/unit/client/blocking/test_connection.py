"""How the blocking client waits at a socket."""

from __future__ import annotations

import socket
import threading

from lockring.client.blocking.connection import ClientConnection, connect
from lockring.client.blocking.spinning import SHARED_NS, SpinBudget
from lockring.clock import monotonic_ns
from lockring.net.sockets import UNACKNOWLEDGED_MS_MAX
from lockring.units import NS_PER_MS

ALONE_NS = SHARED_NS // 10
"""A yield and a look while no other process needs the processor."""


def looks(patience: SpinBudget, times: int) -> list[bool]:
    """Return for each of several waits without an answer whether the caller spins before it sleeps."""
    return [patience.spend() > 0 for _ in range(times)]


def taken(wire: ClientConnection) -> bytes:
    """Return the bytes that the connection receives next."""
    wire.receive(SpinBudget())
    return wire.taken.pop()


def test_spinning_becomes_rarer_if_answers_are_never_quick() -> None:
    patience = SpinBudget()
    assert looks(patience, 8) == [True, True, False, True, False, False, False, True]
    assert sum(looks(patience, 100_000)) < 110
    assert any(looks(patience, 2_000)), "never for good: the node may be near again"


def test_spinning_is_repeated_after_a_quick_answer() -> None:
    patience = SpinBudget()
    looks(patience, 1_000)
    patience.ended(5, ALONE_NS)
    assert looks(patience, 1) == [True]


def test_there_is_no_spinning_while_other_processes_keep_the_processor_for_long() -> None:
    patience = SpinBudget()
    assert patience.spend()
    patience.ended(1, 3 * NS_PER_MS)
    assert sum(looks(patience, 1_000)) == 0
    assert any(looks(patience, 2_000)), "they may be done by then"


def shared_spins(patience: SpinBudget, times: int) -> None:
    """Spin several times, each ended by another process that had the processor."""
    for _ in range(times):
        assert patience.spend()
        patience.ended(3, 2 * SHARED_NS)


def test_sleep_comes_at_once_where_client_and_servers_share_a_processor() -> None:
    patience = SpinBudget()
    shared_spins(patience, 8)
    assert looks(patience, 97) == [False] * 96 + [True]
    for _ in range(10):  # each time for longer, but not for good
        patience.ended(3, 2 * SHARED_NS)
        assert any(looks(patience, 2_000))


def test_a_shared_processor_now_and_then_does_not_end_spinning() -> None:
    patience = SpinBudget()
    for _ in range(10):
        shared_spins(patience, 7)
        assert patience.spend()
        patience.ended(2, ALONE_NS)


def test_an_answer_that_was_there_already_says_nothing_about_the_processor() -> None:
    patience = SpinBudget()
    shared_spins(patience, 7)
    assert patience.spend()
    patience.ended(1, ALONE_NS)
    shared_spins(patience, 1)
    assert looks(patience, 10) == [False] * 10


def test_an_answer_is_read_whether_it_is_there_already_or_comes_later() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = ClientConnection(1, "x:1", ours, monotonic_ns())
    theirs.send(b"there")
    assert taken(wire) == b"there"
    later = threading.Timer(0.2, theirs.send, [b"later"])
    later.start()
    assert taken(wire) == b"later"
    later.join()
    theirs.close()
    assert taken(wire) == b"", "the end of the stream"
    wire.close()


def test_a_long_wait_can_be_woken() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wire = ClientConnection(1, "x:1", ours, monotonic_ns())
    waking = threading.Timer(0.2, wire.wake)
    waking.start()
    wire.receive(SpinBudget())
    assert not wire.taken
    waking.join()
    theirs.close()
    wire.close()


def test_the_system_gives_a_connection_up_whose_other_side_is_gone() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        connect(f"127.0.0.1:{listener.getsockname()[1]}") as sock,
    ):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKNOWLEDGED_MS_MAX
