"""An asynchronous block may be left by another task than entered it, on another loop, or by none at all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

import lockring
from lockring.aio import Client, Grant, Lock
from lockring.client.aio.threaded_driver import ThreadedDriver
from lockring.errors import LockLost, NotHeld
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer


@pytest.fixture(params=[False, True], ids=["on the loop", "own thread"])
def own_thread(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextlib.contextmanager
def own_thread_held_up(client: Client) -> Iterator[None]:
    """Keep the thread of a client that has one from its work, for the time of the block."""
    gate = threading.Event()
    driver = client._driver
    if isinstance(driver, ThreadedDriver):
        assert driver._loop is not None
        driver._loop.call_soon_threadsafe(gate.wait, PATIENCE_S)
    try:
        yield
    finally:
        gate.set()


@contextlib.asynccontextmanager
async def holding(lock: Lock) -> AsyncIterator[Grant]:
    async with lock as grant:
        yield grant


async def stream(lock: Lock) -> AsyncIterator[Grant]:
    async with lock as grant:
        while True:
            yield grant


async def in_task(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.wait_for(asyncio.create_task(work), PATIENCE_S)


def test_an_exit_stack_may_be_closed_by_another_task(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            stack = contextlib.AsyncExitStack()
            grant = await in_task(stack.enter_async_context(client.lock("x")))
            await in_task(stack.aclose())
            assert not grant.held
            assert server.holders("x") == []

    asyncio.run(main())


def test_each_block_releases_its_own_grant_whichever_tasks_enter_and_leave(
    server: LockServer, own_thread: bool
) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            page = client.rwlock("x").read()
            managers = [holding(page) for _ in range(10)]
            grants = [await in_task(manager.__aenter__()) for manager in managers]
            for place in (*range(0, 10, 2), *range(1, 10, 2)):
                await in_task(managers[place].__aexit__(None, None, None))
                assert not grants[place].held
                assert sum(grant.held for grant in grants) == len(server.holders("x"))
            assert server.holders("x") == []
            assert len(page._blocks) == 0

    asyncio.run(main())


def test_a_loss_is_raised_once_where_its_own_block_is_left(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            page = client.rwlock("x").read()
            managers = [holding(page) for _ in range(3)]
            grants = [await in_task(manager.__aenter__()) for manager in managers]
            server.lose("x", token=grants[0].fencing_token)
            await asyncio.wait_for(grants[0].lost.wait(), PATIENCE_S)
            await in_task(managers[1].__aexit__(None, None, None))
            await in_task(managers[2].__aexit__(None, None, None))
            with pytest.raises(LockLost):
                await in_task(managers[0].__aexit__(None, None, None))

    asyncio.run(main())


def test_an_abandoned_stream_is_ended_by_the_loop(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            lines = stream(client.lock("x"))
            grant = await anext(lines)
            del lines
            gc.collect()
            await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])
            assert not grant.held

    asyncio.run(main())


def test_a_stream_may_be_closed_on_another_loop(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            lines = stream(client.lock("x"))
            grant = await anext(lines)
            await asyncio.to_thread(asyncio.run, lines.aclose())  # type: ignore[attr-defined]
            await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])
            assert not grant.held

    asyncio.run(main())


def test_a_coroutine_that_is_thrown_away_gives_its_lock_back(server: LockServer, own_thread: bool) -> None:
    grants: list[Grant] = []

    async def work(lock: Lock, entered: asyncio.Event) -> None:
        async with lock as grant:
            grants.append(grant)
            entered.set()
            await asyncio.Event().wait()

    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            entered = asyncio.Event()
            task = asyncio.create_task(work(client.lock("x"), entered))
            await asyncio.wait_for(entered.wait(), PATIENCE_S)
            coroutine = task.get_coro()
            assert coroutine is not None

            def throw_away() -> None:
                coroutine.close()

            await asyncio.to_thread(throw_away)
            await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeError):
                await task

    asyncio.run(main())


def test_leaving_a_block_that_was_never_entered_is_an_error(server: LockServer, own_thread: bool) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            with pytest.raises(NotHeld, match="never entered, or left before"):
                await client.lock("x").__aexit__(None, None, None)

    asyncio.run(main())


def test_an_acquire_is_not_refused_if_another_task_leaves_the_block(
    server: LockServer, own_thread: bool
) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            page = client.rwlock("x")
            stack = contextlib.AsyncExitStack()
            await stack.enter_async_context(page.read())

            async def close() -> None:
                await asyncio.to_thread(server.wait_until, lambda: len(server.holders("x")) == 2)
                await stack.aclose()

            closing = asyncio.create_task(close())
            async with await page.write().acquire(timeout=PATIENCE_S) as grant:
                assert grant.held
            await closing

            async def write() -> None:
                async with page.write():
                    raise AssertionError("not reached")

            async with page.read():
                with pytest.raises(lockring.InvalidRequest, match="would wait for itself to write"):
                    await write()

    asyncio.run(main())


class Interrupt(BaseException):
    """Ends a call from outside, as a cancellation or the end of the program does."""


async def a_question(client: Client) -> Coroutine[Any, Any, Any]:
    return client.describe("x")


async def an_acquire(client: Client) -> Coroutine[Any, Any, Any]:
    return client.lock("x").acquire()


async def a_release_of_several(client: Client) -> Coroutine[Any, Any, Any]:
    return (await client.acquire_all(["x", "y", "z"])).release()


def throw(call: Coroutine[Any, Any, Any]) -> None:
    call.throw(Interrupt())


def throw_on_a_loop(call: Coroutine[Any, Any, Any]) -> None:
    async def main() -> None:
        throw(call)

    asyncio.run(main())


def end_in_another_thread(call: Coroutine[Any, Any, Any]) -> None:
    """End a call as `throw` does, in a thread, and wait for it without giving the caller's loop a turn."""

    def end() -> None:
        with pytest.raises(Interrupt):
            throw(call)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("interrupt", [throw, throw_on_a_loop])
@pytest.mark.parametrize("begin", [a_question, an_acquire, a_release_of_several])
def test_a_call_that_is_ended_in_another_thread_ends_with_its_own_error_and_leaves_nothing(
    server: LockServer,
    own_thread: bool,
    begin: Callable[[Client], Coroutine[Any, Any, Coroutine[Any, Any, Any]]],
    interrupt: Callable[[Coroutine[Any, Any, Any]], None],
) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            async with client.lock("warm up"):
                pass
            call = await begin(client)
            call.send(None)  # it waits for its answer, and no task drives it
            with pytest.raises(Interrupt):
                await asyncio.to_thread(interrupt, call)
            for name in ("x", "y", "z"):
                await asyncio.to_thread(server.wait_until, lambda name=name: server.holders(name) == [])

    asyncio.run(main())


def test_grants_do_not_count_as_dropped_while_the_client_has_yet_to_release_them(
    server: LockServer, own_thread: bool
) -> None:
    async def main() -> None:
        async with Client(server.address, own_thread=own_thread) as client:
            call = (await client.acquire_all(["x", "y", "z"])).release()
            with own_thread_held_up(client):
                call.send(None)
                end_in_another_thread(call)
                del call
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # a grant that is freed now would warn
                    gc.collect()
            for name in ("x", "y", "z"):
                await asyncio.to_thread(server.wait_until, lambda name=name: server.holders(name) == [])

    asyncio.run(main())
