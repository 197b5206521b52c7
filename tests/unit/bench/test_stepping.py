"""Instructions are counted one by one, so the same work has the same count, and twice the work twice the count."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from bench.children import Child
from bench.stepping import NOTHING, CannotStep, Count, Stepped, obstacle
from tests.unit.bench.jobs import echo_on_socket, marked

pytestmark = pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "can step")


@pytest.fixture
def connected() -> Iterator[tuple[Child[None], socket.socket]]:
    """A process that echoes, and a connection to it."""
    with Child(echo_on_socket) as child, socket.create_connection(("127.0.0.1", child.hear())) as sock:
        yield child, sock


def test_work_between_two_signals_is_counted_and_neither_signal_arrives() -> None:
    with Child(marked) as child:
        child.hear()

        def count_once(rounds: int) -> Count:
            with Stepped(child.pid) as thread:
                found = thread.between_signals(signal.SIGUSR1, lambda: child.tell(rounds))
                assert child.hear() == "done"
            return found

        def count(rounds: int) -> Count:
            # The interpreter now and then does more, such as a collection.
            return min((count_once(rounds) for _ in range(3)), key=lambda each: each.instructions)

        nothing, once, again, twice = count(0), count(20), count(20), count(40)
        assert once.instructions == pytest.approx(again.instructions, rel=0.05)
        ratio = (twice.instructions - nothing.instructions) / (once.instructions - nothing.instructions)
        assert ratio == pytest.approx(2, rel=0.1)
        assert once.instructions - nothing.instructions > 20 * 10


def test_the_turns_of_a_loop_are_told_apart_and_the_chosen_one_is_counted(
    connected: tuple[Child[None], socket.socket],
) -> None:
    child, sock = connected

    def ask(*sizes: int) -> None:
        for size in sizes:
            sock.sendall(bytes(size))
            sock.recv(4096)

    def turns(*sizes: int, stepped: int | None = None) -> list[Count]:
        asker = Thread(target=ask, args=sizes)  # this thread controls the one that answers
        return thread.turns(asker.start, lambda: not asker.is_alive(), stepped)

    with Stepped(child.pid) as thread:
        assert turns(1, 1, 1) == [NOTHING] * 3
        (short,) = turns(1, stepped=0)
        nothing, long = turns(1, 300, stepped=1)
        assert nothing == NOTHING
        assert long.instructions > short.instructions + 299 * 10
        assert short.syscalls == long.syscalls == 2  # recv and send
    ask(1)  # it goes on undisturbed


def test_a_thread_that_is_gone_cannot_be_stepped() -> None:
    with Child(marked) as child:
        pid = child.pid
    with pytest.raises(CannotStep, match=f"cannot step thread {pid}"):
        Stepped(pid)
