"""The dialer, against real listeners."""

from __future__ import annotations

import asyncio
import functools
import itertools
import socket
from collections.abc import Sequence

import pytest

from lockring.errors import LockringError, NotCoordinator, ProtocolError, Unavailable, WrongRole
from lockring.net import dialer
from lockring.net.connection import Outbox
from lockring.net.dialer import Dialer
from lockring.protocol import PROTOCOL, ClientHello, GetState, Message, StateReply, ToClient, Welcome
from tests.processes import address, ports_in_a_row
from tests.unit.net.serving import EchoHost, run, until


class Caller:
    """Notes what a dialer tells it."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        opening_fails: LockringError | None = None,
        pause_s_max: float = 0.05,
    ) -> None:
        self.outbox = Outbox()
        self.opened_at: list[str] = []
        self.times_s: list[float] = []
        self.messages: list[Message] = []
        self.losses: list[str] = []
        self.failures: list[tuple[str, LockringError, int]] = []
        self._opening_fails = opening_fails
        self.dialer = Dialer(
            self, lambda: addresses, ToClient, self.outbox, pause_s_min=0.01, pause_s_max=pause_s_max
        )
        self.dialer.start()

    def hello(self) -> Message:
        return ClientHello(PROTOCOL, "", "caller", len(self.opened_at) + 1)

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        self.failures.append((address, error, hint))

    def opened(self, address: str, welcome: Welcome) -> None:
        self.opened_at.append(address)
        self.times_s.append(asyncio.get_running_loop().time())
        if self._opening_fails is not None:
            raise self._opening_fails

    def arrived(self, messages: list[Message]) -> None:
        self.messages += messages

    def lost(self, reason: str) -> None:
        self.losses.append(reason)

    def has_opened(self, times: int) -> bool:
        return len(self.opened_at) == times

    def ask(self, request: int) -> None:
        assert self.dialer.connection is not None
        self.dialer.connection.send(GetState(request))
        self.outbox.flush()


def test_a_dialer_greets_sends_and_hands_over_answers() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller([host.address])
        await until(lambda: caller.opened_at == [host.address])
        caller.ask(1)
        caller.ask(2)
        await until(lambda: len(caller.messages) == 2)
        assert caller.messages == [StateReply(1, b""), StateReply(2, b"")]
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_lost_connection_is_reported_once_and_dialed_again() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller([host.address])
        await until(lambda: len(caller.opened_at) == 1)
        for guest in list(host.listener.connections):
            guest.abort("the test cuts it")
        await until(lambda: len(caller.opened_at) == 2)
        assert len(caller.losses) == 1
        caller.ask(1)
        await until(lambda: len(caller.messages) == 1)
        caller.dialer.hang_up("once more")
        await until(lambda: len(caller.opened_at) == 3)
        assert caller.losses[1] == "once more"
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_dialer_waits_for_a_server_that_is_not_up_yet() -> None:
    async def main() -> None:
        later = address()
        caller = Caller([later])
        await until(lambda: len(caller.failures) >= 3)
        assert all(isinstance(error, Unavailable) for _, error, _ in caller.failures)
        assert "connection refused" in str(caller.failures[0][1])
        host = EchoHost()
        await host.start(later)
        await until(lambda: len(caller.opened_at) == 1)
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_dialer_uses_the_first_address_that_welcomes_it() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller(["127.0.0.1:1", host.address])
        await until(lambda: len(caller.opened_at) == 1)
        assert caller.opened_at == [host.address]
        assert [address for address, _, _ in caller.failures] == ["127.0.0.1:1"]
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_server_that_stands_still_does_not_hide_the_others_of_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        host = EchoHost()
        port = ports_in_a_row(1)[0]
        await host.start(f"127.0.0.3:{port}")
        with socket.socket() as still:  # its kernel accepts connections, and nothing answers on them
            still.bind(("127.0.0.2", port))
            still.listen()

            async def addresses_of(name: str, port: int) -> list[str]:
                return ["127.0.0.2", "127.0.0.3"]

            monkeypatch.setattr(dialer, "_addresses_of", addresses_of)
            monkeypatch.setattr(dialer, "ANSWER_S_MAX", 0.2)
            caller = Caller([f"all.test:{port}"])
            await until(lambda: len(caller.opened_at) == 1)
            assert len(caller.failures) == 1
            caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_name_is_reached_at_whichever_of_its_addresses_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        port = host.address.rpartition(":")[2]

        async def addresses_of(name: str, port: int) -> list[str]:
            return ["127.0.0.2", "127.0.0.1", "127.0.0.3"]

        monkeypatch.setattr(dialer, "_addresses_of", addresses_of)
        caller = Caller([f"all.test:{port}"])
        for times in (1, 2, 3):
            await until(functools.partial(caller.has_opened, times))
            caller.dialer.hang_up("once more")
        assert caller.failures == []
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_refusal_is_handed_over_with_its_code() -> None:
    async def main() -> None:
        host = EchoHost(clients_max=0)
        await host.start()
        caller = Caller([host.address])
        await until(lambda: len(caller.failures) >= 1)
        assert caller.failures[0][1].code == "overloaded"
        assert caller.opened_at == []
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_dialer_follows_to_the_coordinator_that_another_one_names() -> None:
    """Even if that one is none of the addresses it knows; these are tried first all the same."""

    async def main() -> None:
        leader, standby = EchoHost(), EchoHost()
        await leader.start()
        await standby.start()
        standby.refuses = NotCoordinator("it does not lead", leader=leader.address)
        caller = Caller([standby.address])
        await until(lambda: caller.opened_at == [leader.address])
        assert [address for address, _, _ in caller.failures] == [standby.address]
        standby.refuses = None
        caller.dialer.hang_up("the test cuts it")
        await until(lambda: caller.opened_at == [leader.address, standby.address])
        caller.dialer.close("done")
        await leader.stop()
        await standby.stop()

    run(main())


def test_a_foreign_server_and_an_unreachable_one_give_different_errors() -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        caller = Caller([f"127.0.0.1:{server.sockets[0].getsockname()[1]}"])
        await until(lambda: len(caller.failures) >= 1)
        assert isinstance(caller.failures[0][1], ProtocolError)
        assert "is not a lockring server" in str(caller.failures[0][1])
        caller.dialer.close("done")
        server.close()
        await server.wait_closed()

    run(main())


def test_a_caller_that_rejects_the_welcome_is_not_connected() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller([host.address], opening_fails=WrongRole("not this one"))
        await until(lambda: len(caller.losses) >= 2)
        assert caller.losses[0] == "not this one"
        assert caller.dialer.connection is None
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_connection_that_ends_at_once_is_a_failure_after_which_it_waits_longer() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller([host.address], opening_fails=WrongRole("not this one"), pause_s_max=60)
        await until(lambda: len(caller.opened_at) == 8)
        pauses_s = [later - earlier for earlier, later in itertools.pairwise(caller.times_s)]
        assert all(pause_s > 0.7 * 0.01 * 2**number for number, pause_s in enumerate(pauses_s))
        caller.dialer.close("done")
        await host.stop()

    run(main())


def test_a_closed_dialer_neither_dials_nor_reports() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller([host.address])
        await until(lambda: len(caller.opened_at) == 1)
        caller.ask(1)
        caller.dialer.close("done")
        await until(lambda: not list(host.listener.connections))
        assert host.arrived == [GetState(1)], "what was sent before is delivered"
        await asyncio.sleep(0.1)
        assert len(host.greeted) == 1
        assert caller.losses == []
        await host.stop()

    run(main())


def test_an_address_that_cannot_even_be_looked_up_does_not_end_the_dialing() -> None:
    async def main() -> None:
        host = EchoHost()
        await host.start()
        caller = Caller(["a..b:9501", host.address])
        await until(lambda: caller.opened_at == [host.address])
        assert caller.failures[0][0] == "a..b:9501"
        caller.dialer.close("the test is over")
        await host.stop()

    run(main())
