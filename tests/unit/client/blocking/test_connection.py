"""How the blocking client waits at a socket."""

from __future__ import annotations

import socket
import threading

import pytest

from lockring.client.blocking.connection import ClientConnection, connect
from lockring.client.blocking.spinning import SHARED_NS, SpinBudget
from lockring.clock import monotonic_ns
from lockring.net.sockets import UNACKNOWLEDGED_MS_MAX
from lockring.units import NS_PER_MS, NS_PER_US

ALONE_NS = SHARED_NS // 10
"""A yield and a look while no other process needs the processor."""


def taken(wire: ClientConnection) -> bytes:
    """Return the bytes that the connection receives next."""
    wire.receive(SpinBudget())
    return wire.taken.pop()


def quick_spins(budget: SpinBudget, times: int, *, spin_us: int, sleep_us: int) -> int:
    """Wait several times on a machine on which answers are found by spins, and return the number of spins."""
    spins = 0
    for _ in range(times):
        does_spin = budget.spend() > 0
        if does_spin:
            budget.was_short()
        if budget.is_trial:
            budget.took((spin_us if does_spin else sleep_us) * NS_PER_US)
        spins += does_spin
    return spins


def vain_spins(budget: SpinBudget, times: int, *, last_ns: int) -> int:
    """Wait several times for answers that no spin finds, and return the number of spins."""
    spins = 0
    for _ in range(times):
        does_spin = budget.spend() > 0
        if does_spin:
            budget.was_long(last_ns)
        if budget.is_trial:
            budget.took(NS_PER_MS)
        spins += does_spin
    return spins


def test_the_wait_begins_with_a_spin_where_that_is_quicker() -> None:
    budget = SpinBudget()
    assert quick_spins(budget, 100_000, spin_us=40, sleep_us=120) > 99_000


@pytest.mark.parametrize("spin_us", [39, 60])
def test_sleep_comes_at_once_where_a_spin_is_not_clearly_quicker(spin_us: int) -> None:
    budget = SpinBudget()
    assert quick_spins(budget, 100_000, spin_us=spin_us, sleep_us=40) < 500


def test_the_ways_are_tried_again_when_the_machine_has_changed() -> None:
    budget = SpinBudget()
    quick_spins(budget, 100_000, spin_us=60, sleep_us=40)
    assert quick_spins(budget, 10_000, spin_us=60, sleep_us=120) > 1_000
    assert quick_spins(budget, 10_000, spin_us=60, sleep_us=120) > 9_900
    assert quick_spins(budget, 20_000, spin_us=60, sleep_us=40) < 10_000


def test_answers_that_take_long_now_and_then_do_not_decide() -> None:
    budget = SpinBudget()
    for number in range(32):
        does_spin = budget.spend() > 0
        budget.took(
            10 * NS_PER_MS if does_spin and number % 3 == 0 else (40 if does_spin else 120) * NS_PER_US
        )
    assert quick_spins(budget, 100, spin_us=40, sleep_us=120) == 100


def test_spinning_becomes_rare_if_answers_are_never_quick() -> None:
    budget = SpinBudget()
    assert vain_spins(budget, 100_000, last_ns=ALONE_NS) < 60
    assert vain_spins(budget, 10_000, last_ns=ALONE_NS), "never for good: the node may be near again"


def test_a_slow_answer_now_and_then_does_not_end_spinning() -> None:
    budget = SpinBudget()
    quick_spins(budget, 32, spin_us=40, sleep_us=120)
    for _ in range(20):
        assert vain_spins(budget, 2, last_ns=ALONE_NS) == 2
        assert quick_spins(budget, 1, spin_us=40, sleep_us=120) == 1


def test_there_is_no_spinning_while_other_processes_keep_the_processor_for_long() -> None:
    budget = SpinBudget()
    assert vain_spins(budget, 500, last_ns=3 * NS_PER_MS) == 1
    assert vain_spins(budget, 100_000, last_ns=3 * NS_PER_MS) < 20


def test_a_spin_that_another_process_ends_is_judged_by_its_time_alone() -> None:
    budget = SpinBudget()
    for _ in range(16):
        assert budget.spend() > 0
        budget.was_long(2 * SHARED_NS)
        budget.took(40 * NS_PER_US)
    assert quick_spins(budget, 16, spin_us=40, sleep_us=120) == 0
    assert quick_spins(budget, 100, spin_us=40, sleep_us=120) == 100


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
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock, tls = connect(f"127.0.0.1:{listener.getsockname()[1]}")
    with sock:
        assert tls is None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNACKNOWLEDGED_MS_MAX
