"""The listener and its guests, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import socket
import time
from collections import Counter

import pytest

from lockring.errors import CannotListen, InvalidRequest
from lockring.net import accepted as guest_module
from lockring.net.accepted import AcceptedConnection
from lockring.net.descriptors import RESERVED_MAX
from lockring.net.frames import encode_frame
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    GetState,
    Message,
    PeerHello,
    Refusal,
    StateReply,
)
from lockring.protocol import Welcome as WelcomeMessage
from tests.cluster.wire import Wire
from tests.unit.net.serving import EchoHost, run, until, with_host

HELLO = ClientHello(PROTOCOL, "", "client", 1)
PEER_HELLO = PeerHello(PROTOCOL, "c", "N2", 1, "N1", 1)


async def talk(host: EchoHost, *chunks: bytes, answers: int) -> list[Message]:
    """Send bytes on a connection of its own, and return the first answers."""

    def blocking() -> list[Message]:
        with Wire(host.address) as wire:
            for chunk in chunks:
                wire.write(chunk)
            return [wire.read() for _ in range(answers)]

    return await asyncio.to_thread(blocking)


def test_a_hello_in_single_bytes_is_a_hello() -> None:
    async def test(host: EchoHost) -> None:
        chunks = [bytes([byte]) for byte in encode_frame(HELLO)]
        (welcome,) = await talk(host, *chunks, answers=1)
        assert isinstance(welcome, WelcomeMessage)

    with_host(test)()


def test_bytes_after_the_hello_in_the_same_read_are_kept_and_may_be_longer_than_a_hello() -> None:
    async def test(host: EchoHost) -> None:
        long = Acquire(1, "s" * 10_000, 1000, "o", 1, "x")
        data = (
            encode_frame(HELLO) + encode_frame(GetState(1)) + encode_frame(GetState(2)) + encode_frame(long)
        )
        answers = await talk(host, data, answers=4)
        assert [type(each) for each in answers] == [WelcomeMessage, StateReply, StateReply, Refusal]
        assert host.arrived == [GetState(1), GetState(2), long]

    with_host(test)()


@pytest.mark.parametrize("hello", [HELLO, PEER_HELLO], ids=["client", "member"])
def test_a_frame_that_does_not_come_to_its_end_ends_its_connection(
    hello: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_module, "FRAME_S_MAX", 0.1)

    async def test(host: EchoHost) -> None:
        half = encode_frame(Acquire(1, "s" * 10_000, 1000, "o", 1, "x"))[:5_000]
        answers = await talk(host, encode_frame(hello) + half, answers=2)
        assert isinstance(answers[1], Refusal)
        assert "a frame was still incomplete" in answers[1].text
        await until(lambda: len(host.left) == 1)
        answers = await talk(host, encode_frame(hello), half[:2], answers=2)
        assert isinstance(answers[1], Refusal)

    with_host(test)()


def test_time_is_given_to_each_frame_and_not_to_all_that_follow_one_another_without_a_gap() -> None:
    """A part of a frame is there all the time, though never of the same one."""

    async def test(host: EchoHost) -> None:
        frames = [encode_frame(GetState(number)) for number in range(1, 6)]

        def has_arrived(number: int) -> bool:
            return len(host.arrived) == number

        with Wire(host.address) as wire:
            wire.write(encode_frame(HELLO) + frames[0][:3])
            await until(lambda: bool(host.greeted))
            (guest,) = host.listener.connections
            assert isinstance(guest, AcceptedConnection)
            given = [guest._deadline]
            for number, (one, after) in enumerate(itertools.pairwise(frames), start=1):
                wire.write(one[3:] + after[:3])
                await until(functools.partial(has_arrived, number))
                given.append(guest._deadline)
            wire.write(frames[-1][3:])
            await until(lambda: len(host.arrived) == len(frames))
            assert guest._deadline is None
        assert [each is not None and each.cancelled() for each in given] == [True] * len(frames)
        assert len(set(map(id, given))) == len(frames)

    with_host(test)()


def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    """Closing while bytes arrive would make the system answer with a reset, and the reason would be lost."""

    async def test(host: EchoHost) -> None:
        with Wire(host.address) as wire:
            wire.write(b"\xff" * 100)
            await until(lambda: any(not guest.is_open for guest in host.listener.connections))
            for _ in range(5):
                wire.write(b"x" * 100_000)
                await asyncio.sleep(0.02)
            assert isinstance(await asyncio.to_thread(wire.read), Refusal)

    with_host(test)()


def test_clients_beyond_the_limit_are_refused_and_members_are_not() -> None:
    async def test(host: EchoHost) -> None:
        with Wire(host.address) as first, Wire(host.address) as second:
            for wire in (first, second):
                wire.send(HELLO)
            await until(lambda: len(host.greeted) == 2)
            (refused,) = await talk(host, encode_frame(HELLO), answers=1)
            assert isinstance(refused, Refusal)
            assert refused.code == "overloaded"
            assert "2 client connections" in refused.text
            (welcome,) = await talk(host, encode_frame(PEER_HELLO), answers=1)
            assert isinstance(welcome, WelcomeMessage)
        await until(lambda: len(host.left) == 3)
        (welcome,) = await talk(host, encode_frame(HELLO), answers=1)
        assert isinstance(welcome, WelcomeMessage), "there is room again"

    with_host(test, clients_max=2)()


def test_connections_that_say_nothing_are_bounded_too() -> None:
    async def test(host: EchoHost) -> None:
        wires = [Wire(host.address) for _ in range(RESERVED_MAX + 1)]
        await until(lambda: len(list(host.listener.connections)) == len(wires))
        with Wire(host.address) as one_more:
            refused = await asyncio.to_thread(one_more.refusal)
            assert refused.code == "overloaded"
        for wire in wires:
            wire.__exit__(None, None, None)

    with_host(test, clients_max=1)()


def test_strangers_that_come_again_and_again_have_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(host: EchoHost) -> None:
        for _ in range(20):
            with Wire(host.address) as wire:
                wire.write(b"GET / HTTP/1.1\r\n\r\n")
                assert (await asyncio.to_thread(wire.refusal)).code == "protocol"
        wrong = encode_frame(GetState(1))
        with Wire(host.address) as wire:
            wire.write(wrong)
            await asyncio.to_thread(wire.refusal)

    caplog.set_level("INFO", "lockring.net")
    with_host(test)()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2, "one for each reason"
    assert "does not speak HTTP" in lines[0]
    assert "no hello" in lines[1]


def test_a_client_that_does_not_read_its_answers_is_cut_off() -> None:
    """A short question may have a long answer: what one read asks for must not fill the memory."""

    async def test(host: EchoHost) -> None:
        host.answer = b"x" * 1_000_000
        with Wire(host.address) as wire:
            wire.send(HELLO)
            wire.write(encode_frame(GetState(1)) * 1_000)
            await until(lambda: len(host.left) == 1)
        assert host.left == ["it left more than 8 MiB unread"]
        assert host.longest_queue < 20_000_000

    with_host(test)()


def test_a_client_that_floods_the_server_does_not_delay_the_others() -> None:
    async def test(host: EchoHost) -> None:
        turns: list[int] = []

        def slow(guest: AcceptedConnection) -> None:
            turns.append(guest.number)
            time.sleep(0.02)
            if len(turns) == 3:  # now there is more to read than one read takes
                modest.send(GetState(2))

        flood = encode_frame(Acquire(1, "s" * 1_000, 1000, "o", 1, "x"))
        with Wire(host.address) as greedy, Wire(host.address) as modest:
            for wire in (greedy, modest):
                wire.send(HELLO)
            await until(lambda: len(host.greeted) == 2)
            host.on_deliver, host.refused = slow, ()
            sending = asyncio.create_task(asyncio.to_thread(greedy.write, flood * 20_000))
            await until(lambda: len(set(turns)) == 2)
            await sending
            assert len(set(turns[:8])) == 2, turns

    with_host(test)()


def test_many_clients_together_do_not_keep_the_loop_from_everything_else() -> None:
    """Fifty that each took 50 ms kept a node from its heartbeats for 2.5 s, and cost it its leases."""

    async def test(host: EchoHost) -> None:
        loop = asyncio.get_running_loop()
        rounds = 0
        handled_in: list[int] = []
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(host.address)) for _ in range(30)]
            for wire in wires:
                wire.send(HELLO if wire is wires[0] else ClientHello(PROTOCOL, "", f"client {id(wire)}", 1))
            await until(lambda: len(host.greeted) == len(wires))

            def count_rounds() -> None:
                nonlocal rounds
                rounds += 1
                loop.call_soon(count_rounds)

            def slow(guest: AcceptedConnection) -> None:
                if not handled_in:
                    for wire in wires[1:]:  # all of these are there to be read when this one is done
                        wire.send(GetState(2))
                time.sleep(0.03)
                handled_in.append(rounds)

            host.on_deliver = slow
            count_rounds()
            wires[0].send(GetState(1))
            await until(lambda: len(handled_in) == len(wires))
            answers = await asyncio.to_thread(lambda: [[wire.read(), wire.read()] for wire in wires])
        assert max(Counter(handled_in).values()) <= 4, handled_in
        assert [type(answer) for _, answer in answers] == [StateReply] * len(wires)

    with_host(test)()


def test_messages_that_the_host_defers_come_again_in_order_and_end_with_their_connection() -> None:
    async def test(host: EchoHost) -> None:
        host.most_at_once = 3
        data = b"".join(encode_frame(GetState(number)) for number in range(1, 101))
        answers = await talk(host, encode_frame(HELLO), data, answers=101)
        assert host.arrived == [GetState(number) for number in range(1, 101)]
        assert [each.request for each in answers[1:] if isinstance(each, StateReply)] == list(range(1, 101))
        host.arrived.clear()
        bad = encode_frame(Acquire(1, "s", 1000, "o", 1, "x"))
        await talk(host, encode_frame(HELLO), bad + data, answers=2)
        await until(lambda: not list(host.listener.connections))
        assert len(host.arrived) == 1

    with_host(test)()


def test_the_host_is_notified_once_of_each_admitted_guest_that_leaves() -> None:
    async def test(host: EchoHost) -> None:
        await talk(host, encode_frame(HELLO), answers=1)
        await talk(host, b"garbage!", answers=1)
        await until(lambda: not list(host.listener.connections))
        assert len(host.left) == 1

    with_host(test)()


def test_an_address_with_port_zero_takes_a_free_one() -> None:
    async def main() -> None:
        first, second = EchoHost(), EchoHost()
        await first.start()
        await second.start()
        assert first.address != second.address
        assert not first.address.endswith(":0")
        await first.stop()
        await second.stop()

    run(main())


@pytest.mark.parametrize(
    ("address", "error", "text"),
    [
        ("nonsense", InvalidRequest, "HOST:PORT"),
        ("127.0.0.1:99999", InvalidRequest, "HOST:PORT"),
        ("no-such-host.invalid:0", CannotListen, "no-such-host.invalid"),
        ("192.0.2.1:0", CannotListen, "no such address"),
    ],
)
def test_an_address_that_cannot_be_listened_at_is_named(
    address: str, error: type[Exception], text: str
) -> None:
    async def main() -> None:
        with pytest.raises(error, match=text):
            await EchoHost().start(address)

    run(main())


def test_a_taken_port_is_named() -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(CannotListen, match="already taken"):
                await EchoHost().start(f"127.0.0.1:{taken.getsockname()[1]}")

    run(main())
