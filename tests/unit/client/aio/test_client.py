"""The asyncio client over real sockets, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from lockring.aio import Client, Grant
from lockring.errors import (
    AcquireTimeout,
    ClientClosed,
    InvalidRequest,
    LockLost,
    NotHeld,
    ProtocolError,
    Unavailable,
    UnknownNode,
)
from lockring.protocol import Acquire, Keepalive, Release, Unwatch
from tests.processes import PATIENCE_S, address
from tests.unit.client.lock_server import LockServer

Main = Callable[[Client], Awaitable[None]]
Run = Callable[[Main], None]


@pytest.fixture(params=["asyncio", "uvloop", "own thread"])
def own_thread(request: pytest.FixtureRequest) -> bool:
    """Whether the client works in a thread of its own; see `factory`, which goes by the same parameter."""
    return bool(request.param == "own thread")


@pytest.fixture
def factory(request: pytest.FixtureRequest) -> Any:
    callspec = getattr(request.node, "callspec", None)
    kind = "asyncio" if callspec is None else callspec.params.get("own_thread", "asyncio")
    return uvloop.new_event_loop if kind == "uvloop" else asyncio.new_event_loop


@pytest.fixture
def run(server: LockServer, factory: Any, own_thread: bool) -> Run:
    """Run a coroutine function with a client of the server, and look for what is left afterwards."""

    def run_main(main: Main) -> None:
        async def outer() -> None:
            client = Client(server.address, owner="tester", own_thread=own_thread)
            async with client, asyncio.timeout(PATIENCE_S):
                await main(client)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=factory) as runner:
            problems: list[dict[str, Any]] = []
            runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
            runner.run(outer())
            assert problems == []

    return run_main


async def until(server: LockServer, condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(server.wait_until, condition)


def test_a_grant_describes_itself_and_is_released(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        began_s = time.monotonic()
        grant = await client.lock("x").acquire()
        assert (grant.name, grant.owner, grant.fencing_token) == ("x", "tester", 1)
        assert grant.held
        assert grant.check() is grant
        left_s = grant.remaining()
        assert 10 - (time.monotonic() - began_s) <= left_s <= 10
        assert await grant.verify()
        assert not grant.lost.is_set()
        await grant.release()
        assert not grant.held
        assert not await grant.verify()
        with pytest.raises(NotHeld):
            await grant.release()
        async with client.lock("x") as again:
            assert again.fencing_token == 2
        async with await client.lock("x").acquire(timeout=5) as again:
            assert again.fencing_token == 3
        assert server.holders("x") == []
        with pytest.raises(NotHeld):
            async with again:
                raise AssertionError("the body must not run")

    run(main)


def test_requests_overlap_on_one_connection_without_a_task_each(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        await (await client.lock("warm").acquire()).release()
        before = len(asyncio.all_tasks())
        grants = await asyncio.gather(*[client.lock(f"x{number}").acquire() for number in range(500)])
        assert len(asyncio.all_tasks()) == before
        assert len({grant.fencing_token for grant in grants}) == 500
        await asyncio.gather(*[grant.release() for grant in grants])
        assert server.greeted == 1

    run(main)


def test_waiters_are_served_in_order(run: Run) -> None:
    async def main(client: Client) -> None:
        order: list[int] = []

        async def work(number: int) -> None:
            async with client.lock("x"):
                order.append(number)

        async with client.lock("x"):
            tasks = []
            for number in range(10):
                tasks.append(asyncio.create_task(work(number)))
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == list(range(10))

    run(main)


def test_one_lock_object_may_be_entered_by_many_tasks(run: Run) -> None:
    async def main(client: Client) -> None:
        lock = client.lock("x")

        async def work() -> int:
            async with lock as grant:
                await asyncio.sleep(0)
                return grant.fencing_token

        assert sorted(await asyncio.gather(*[work() for _ in range(10)])) == list(range(1, 11))
        assert len(lock._blocks) == 0

    run(main)


def test_a_decorated_coroutine_function_runs_under_the_lock(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        @client.lock("x").synchronized
        async def work(number: int) -> tuple[int, int]:
            return number, len(server.holders("x"))

        assert await work(7) == (7, 1)
        assert server.holders("x") == []
        with pytest.raises(InvalidRequest, match=r"lockring\.Client"):
            client.lock("x").synchronized(lambda: None)  # type: ignore[type-var]

    run(main)


def test_tries_and_bounded_waits_end(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        async with client.lock("x"):
            assert await client.lock("x").try_acquire() is None
            with pytest.raises(AcquireTimeout):
                await client.lock("x").acquire(timeout=1.1)
            await until(server, lambda: len(server.holders("x")) == 1)
        grant = await client.lock("x").try_acquire()
        assert grant is not None
        await grant.release()

    run(main)


def test_waits_gives_the_reasons_of_waiting_calls(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        assert client.waits() == []
        async with client.lock("x"):
            task = asyncio.create_task(client.lock("x").acquire())
            await until(server, lambda: len(server.holders("x")) == 2)
            waits = client.waits()
            for _ in range(10_000):  # what the server has sent may not be here yet
                if waits and waits[0].reason == "held":
                    break
                await asyncio.sleep(0.005)
                waits = client.waits()
            assert [(wait.name, wait.reason, wait.left_s) for wait in waits] == [("x", "held", None)]
        await (await task).release()
        assert client.waits() == []

    run(main)


class TestCancelling:
    def test_a_cancelled_wait_leaves_nothing_behind(self, run: Run, server: LockServer) -> None:
        async def main(client: Client) -> None:
            async with client.lock("x"):
                task = asyncio.create_task(client.lock("x").acquire())
                await until(server, lambda: len(server.holders("x")) == 2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(server, lambda: len(server.holders("x")) == 1)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.lock("x").acquire(), 0.1)
                await until(server, lambda: server.count(Release) == 2)
                assert len(server.holders("x")) == 1

        run(main)

    def test_a_cancel_that_crosses_the_grant_leaves_nothing_behind(
        self, run: Run, server: LockServer
    ) -> None:
        async def main(client: Client) -> None:
            await (await client.lock("warm").acquire()).release()
            for turns in range(12):
                task = asyncio.create_task(client.lock("x").acquire())
                for _ in range(turns):
                    await asyncio.sleep(0)
                if turns % 2:
                    await asyncio.to_thread(time.sleep, 0.005)
                task.cancel()
                grant = (await asyncio.gather(task, return_exceptions=True))[0]
                if isinstance(grant, Grant):
                    await grant.release()
            await until(server, lambda: server.holders("x") == [])

        run(main)

    def test_a_grant_that_came_before_the_cancelled_task_ran_again_is_released(
        self, run: Run, server: LockServer
    ) -> None:
        async def main(client: Client) -> None:
            await (await client.lock("warm").acquire()).release()
            task = asyncio.create_task(client.lock("x").acquire())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await until(server, lambda: len(server.holders("x")) == 1)
            # The answer is in the socket; block the loop's turn so that both happen in one.
            asyncio.get_running_loop().call_later(0, task.cancel)
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                await task.result().release()
            await until(server, lambda: server.holders("x") == [])

        run(main)

    def test_a_cancelled_release_goes_on_by_itself(self, run: Run, server: LockServer) -> None:
        async def main(client: Client) -> None:
            grant = await client.lock("x").acquire()
            task = asyncio.create_task(grant.release())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(server, lambda: server.holders("x") == [])

        run(main)

    def test_a_cancelled_query_is_forgotten(self, run: Run) -> None:
        async def main(client: Client) -> None:
            task = asyncio.create_task(client.describe("x"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.describe("x")).holders == []

        run(main)


class TestLoss:
    def test_a_loss_sets_the_event_and_runs_the_callbacks_before_the_lock_is_released(
        self, run: Run, server: LockServer, own_thread: bool
    ) -> None:
        async def main(client: Client) -> None:
            grant = await client.lock("x").acquire()
            told: list[tuple[str, str, int]] = []
            grant.on_lost(lambda loss: told.append((loss.name, loss.reason, server.count(Release))))
            lost = grant.lost
            server.lose("x")
            await lost.wait()
            ((name, reason, releases),) = told
            assert (name, reason) == ("x", "broken")
            # From a thread of its own the client lets go without waiting for this loop, which may be blocked for long.
            assert releases == 0 or own_thread
            assert not grant.held
            await until(server, lambda: server.count(Release) == 1)
            with pytest.raises(LockLost):
                await grant.release()
            late: list[LockLost] = []
            grant.on_lost(late.append)
            assert late[0].reason == "broken"

        run(main)

    def test_a_coroutine_function_is_refused_as_a_callback(self, run: Run, server: LockServer) -> None:
        async def main(client: Client) -> None:
            async def never_run(_: LockLost) -> None:
                pass

            grant = await client.lock("x").acquire()
            with pytest.raises(InvalidRequest, match="async"):
                grant.on_lost(never_run)
            await grant.release()

        run(main)

    def test_a_failing_callback_is_reported_to_the_loop(self, server: LockServer) -> None:
        async def main() -> None:
            problems: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
            async with Client(server.address) as client:
                grant = await client.lock("x").acquire()
                called = asyncio.Event()
                grant.on_lost(lambda _: 1 / 0)
                grant.on_lost(lambda _: called.set())
                server.lose("x")
                await called.wait()
            assert isinstance(problems[0]["exception"], ZeroDivisionError)

        asyncio.run(main())

    def test_a_callback_that_reads_a_cancelled_future_keeps_nothing_from_happening(
        self, server: LockServer
    ) -> None:
        async def main() -> None:
            problems: list[dict[str, Any]] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            cancelled = loop.create_future()
            cancelled.cancel()
            async with Client(server.address) as client:
                grant = await client.lock("x").acquire()
                called = asyncio.Event()
                grant.on_lost(lambda _: cancelled.result())
                grant.on_lost(lambda _: called.set())
                server.lose("x")
                await asyncio.wait_for(called.wait(), PATIENCE_S)
                async with asyncio.timeout(PATIENCE_S), client.lock("y"):
                    pass
            assert [type(each["exception"]) for each in problems] == [asyncio.CancelledError]

        asyncio.run(main())

    def test_leaving_a_block_after_a_loss_raises_or_notes(self, run: Run, server: LockServer) -> None:
        async def main(client: Client) -> None:
            with pytest.raises(LockLost):  # noqa: PT012
                async with client.lock("x") as grant:
                    server.lose("x")
                    await grant.lost.wait()
            with pytest.raises(ZeroDivisionError) as caught:  # noqa: PT012
                async with client.lock("x") as grant:
                    server.lose("x")
                    await grant.lost.wait()
                    raise ZeroDivisionError
            assert any("lost" in note for note in caught.value.__notes__)

        run(main)

    def test_a_held_lock_is_renewed_and_lost_in_time_when_it_cannot_be(
        self, run: Run, server: LockServer
    ) -> None:
        async def main(client: Client) -> None:
            grant = await client.lock("x", ttl=2).acquire()  # more than a busy machine takes from the loop
            await until(server, lambda: server.count(Keepalive) >= 5)
            assert grant.held
            server.mute = {Keepalive, Acquire}
            await grant.lost.wait()
            with pytest.raises(LockLost, match="could not be renewed"):
                grant.check()

        run(main)

    def test_a_blocked_loop_finds_its_grant_lost_at_the_very_next_look(
        self, run: Run, server: LockServer, own_thread: bool
    ) -> None:
        if own_thread:
            pytest.skip("a client with a thread of its own keeps it: see tests/cluster/test_busy.py")

        async def main(client: Client) -> None:
            grant = await client.lock("x", ttl=0.2).acquire()
            told: list[LockLost] = []
            grant.on_lost(told.append)
            time.sleep(0.25)  # noqa: ASYNC251 - the loop is blocked on purpose
            assert grant.lost.is_set()
            assert not grant.held
            assert told

        run(main)

    def test_after_a_stall_pending_messages_are_read_before_a_server_counts_as_silent(
        self, run: Run, server: LockServer
    ) -> None:
        async def main(client: Client) -> None:
            grant = await client.lock("x", ttl=6).acquire()
            await until(server, lambda: server.count(Keepalive) >= 1)
            time.sleep(2.6)  # noqa: ASYNC251 - longer than the silence that ends a connection
            await asyncio.sleep(0.2)
            assert grant.held
            assert server.greeted == 1
            await grant.release()

        run(main)


def test_waiting_goes_on_over_a_broken_connection(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        first = await client.lock("x").acquire()
        task = asyncio.create_task(client.lock("x").acquire())
        await until(server, lambda: len(server.holders("x")) == 2)
        server.cut()
        await until(server, lambda: server.greeted == 2 and len(server.holders("x")) == 2)
        assert first.held
        await first.release()
        second = await task
        assert second.held
        await second.release()

    run(main)


def test_several_locks_are_all_or_none(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        async with await client.acquire_all(["b", "a"]) as grants:
            assert [(grant.name, grant.fencing_token) for grant in grants] == [("b", 2), ("a", 1)]
            assert grants.held
        assert not grants.held
        async with client.lock("b"):
            with pytest.raises(AcquireTimeout):
                await client.acquire_all(["a", "b"], timeout=1)
            await until(server, lambda: server.holders("a") == [])
        with pytest.raises(LockLost):  # noqa: PT012
            async with await client.acquire_all(["a", "b"]) as grants:
                server.lose("b")
                await grants[1].lost.wait()
        await until(server, lambda: server.holders("a") == [])
        grants = await client.acquire_all(["a", "b"])
        server.lose("b")
        await grants[1].lost.wait()
        with pytest.raises(LockLost):
            await grants.release()
        assert server.holders("a") == []
        assert "token" in repr(grants)
        assert len(grants[:1]) == 1

    run(main)


def test_a_cancelled_release_of_several_leaves_none_held(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        grants = await client.acquire_all(["a", "b", "c"])
        server.mute = {Release}
        releasing = asyncio.create_task(grants.release())
        await until(server, lambda: server.count(Release) == 1)
        releasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await releasing
        await until(server, lambda: server.count(Release) == 3)
        assert not any(grant.held for grant in grants)
        server.mute = set()

    run(main)


def test_queries_and_operators_commands_are_answered(run: Run) -> None:
    async def main(client: Client) -> None:
        assert await client.owner_of("x") is None
        grant = await client.lock("x").acquire()
        assert str(await client.owner_of("x")) == "tester"
        assert [lock.name for lock in await client.locks()] == ["x"]
        lost = grant.lost
        with pytest.raises(NotHeld):
            await client.break_lock("x", 99)
        assert not (await client.break_lock("x", grant.fencing_token)).freed
        await lost.wait()
        assert (await client.state()).cluster == "cluster"
        assert (await client.state_and_note())[1] == "all is well"
        await client.drain("a")
        with pytest.raises(UnknownNode):
            await client.drain("b")
        await client.undrain("a")
        with pytest.raises(UnknownNode):
            await client.undrain("b")

    run(main)


def test_a_watch_sees_every_change_and_ends_with_the_iteration(run: Run, server: LockServer) -> None:
    async def main(client: Client) -> None:
        watch = client.watch("x")
        assert (await anext(watch)).holders == []
        async with client.lock("x"):
            assert (await anext(watch)).holders[0].owner == "tester"
        assert (await anext(watch)).holders == []
        await watch.aclose()  # type: ignore[attr-defined]
        await until(server, lambda: server.count(Unwatch) == 1)
        watch = client.watch("x")
        await anext(watch)
        closing = asyncio.create_task(client.close())
        with pytest.raises(ClientClosed):
            await anext(watch)
        await closing

    run(main)


def test_a_client_belongs_to_one_loop(server: LockServer) -> None:
    client = Client(server.address)

    async def use() -> None:
        await (await client.lock("x").acquire()).release()

    async def close() -> None:
        await client.close()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(ClientClosed, match="another event loop"):
            asyncio.run(use())
        runner.run(close())


def test_closing_gives_up_everything(server: LockServer, factory: Any) -> None:
    async def main() -> None:
        client = Client(server.address)
        grant = await client.lock("x").acquire()
        waiting = asyncio.create_task(client.lock("x").acquire())
        await until(server, lambda: len(server.holders("x")) == 2)
        await client.close()
        assert server.holders("x") == []
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(LockLost, match="the client was closed"):
            grant.check()
        with pytest.raises(ClientClosed):
            await client.lock("x").acquire()
        await client.close()
        await Client(server.address).close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_an_unreachable_server_and_a_foreign_one_give_different_errors(factory: Any) -> None:
    nobody = address()

    async def main() -> None:
        async with Client(nobody) as client:
            with pytest.raises(Unavailable, match=f"{nobody}: .*refused"):
                await client.lock("x").acquire(timeout=2)
        async with Client("no.such.host.invalid:1", connect_timeout=0.5) as client:
            with pytest.raises(Unavailable, match=r"no\.such"):
                await client.lock("x").acquire()

        async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 smtp.example.com ESMTP\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0) as other:
            stranger = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
            async with Client(stranger) as client:
                with pytest.raises(ProtocolError, match=f"{stranger} is not a lockring server"):
                    await client.lock("x").acquire()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_a_silent_server_does_not_hold_up_the_close(factory: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"127.0.0.1:{listener.getsockname()[1]}"

        async def main() -> None:
            async with Client(silent) as client:
                with pytest.raises(Unavailable):
                    await client.lock("x").acquire(timeout=0.1)

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    assert threading.active_count() < 20
