"""No part of a decorated function runs without the lock, whatever kind of function it is and whatever it returns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import sqlite3
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any, assert_type, overload

import pytest

import lockring
from lockring.aio import Client as AsyncClient
from lockring.errors import InvalidRequest, LockLost
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer


@pytest.fixture
def is_held(server: LockServer) -> Callable[[], bool]:
    return lambda: len(server.holders("x")) == 1


def kind_of(value: object) -> str:
    return getattr(value, "__name__", "") or type(value).__name__


async def coroutine(*_: object) -> None: ...
async def async_generator(*_: object) -> AsyncIterator[int]:
    yield 1


class AsyncCall:
    async def __call__(self, number: int = 0) -> int:
        return number


class AsyncGeneratorCall:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


class Counting:
    """An iterator with no more to it than that."""

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 1


@contextlib.contextmanager
def manager() -> Iterator[None]:
    yield


@contextlib.asynccontextmanager
async def async_manager() -> AsyncIterator[None]:
    yield


class TestGenerators:
    def test_a_generator_holds_the_lock_from_its_first_step_to_its_end(
        self, client: lockring.Client, is_held: Callable[[], bool]
    ) -> None:
        seen: list[object] = []

        @client.lock("x").synchronized
        def work(number: int) -> Generator[int, str, str]:
            """The docstring of the function."""
            assert is_held()
            seen.append((yield number))
            assert is_held()
            try:
                yield number + 1
            except KeyError as error:
                assert is_held()
                seen.append(error)
            return "the end"

        body = work(7)
        assert not is_held()
        assert next(body) == 7
        assert body.send("sent") == 8
        error = KeyError("thrown")
        with pytest.raises(StopIteration) as end:
            body.throw(error)
        assert end.value.value == "the end"
        assert seen == ["sent", error]
        assert not is_held()
        assert work.__doc__ == "The docstring of the function."

    def test_a_closed_or_abandoned_generator_cleans_up_under_the_lock(
        self, client: lockring.Client, is_held: Callable[[], bool]
    ) -> None:
        cleaned_up: list[bool] = []

        @client.lock("x").synchronized
        def work() -> Iterator[int]:
            try:
                while True:
                    yield 1
            finally:
                cleaned_up.append(is_held())

        body = work()
        next(body)
        body.close()  # type: ignore[attr-defined]
        body = work()
        next(body)
        del body
        gc.collect()
        assert cleaned_up == [True, True]
        assert not is_held()

    def test_a_generator_takes_no_step_once_the_lock_is_lost(
        self, client: lockring.Client, server: LockServer
    ) -> None:
        steps: list[int] = []
        cleaned_up = threading.Event()

        @client.lock("x").synchronized
        def work() -> Iterator[int]:
            try:
                for number in itertools.count():
                    steps.append(number)
                    yield number
            finally:
                cleaned_up.set()

        body = work()
        next(body)
        server.lose("x")
        server.wait_until(lambda: server.holders("x") == [])  # the client has heard of it, and let go
        with pytest.raises(LockLost) as loss:
            next(body)
        assert not getattr(loss.value, "__notes__", [])
        assert steps == [0]
        assert cleaned_up.is_set()

    def test_a_context_manager_made_of_a_generator_holds_the_lock_in_its_block(
        self, client: lockring.Client, is_held: Callable[[], bool]
    ) -> None:
        @contextlib.contextmanager
        @client.lock("x").synchronized
        def work() -> Iterator[int]:
            yield 7

        with work() as number:
            assert number == 7
            assert is_held()
        assert not is_held()


class TestKinds:
    def test_methods_of_all_kinds_and_partials_can_be_decorated(
        self, client: lockring.Client, is_held: Callable[[], bool]
    ) -> None:
        lock = client.lock("x")

        class Work:
            @lock.synchronized
            def plain(self, number: int) -> tuple[object, int, bool]:
                return self, number, is_held()

            @lock.synchronized
            @staticmethod
            def static(number: int) -> tuple[int, bool]:
                return number, is_held()

            @staticmethod
            @lock.synchronized
            def static_inside(number: int) -> tuple[int, bool]:
                return number, is_held()

            @lock.synchronized
            @classmethod
            def of_class(cls, number: int) -> tuple[object, int, bool]:
                return cls, number, is_held()

            def __call__(self, number: int) -> tuple[int, bool]:
                return number, is_held()

        work = Work()
        assert work.plain(1) == (work, 1, True)
        assert work.static(2) == Work.static(2) == (2, True)
        assert work.static_inside(3) == (3, True)
        assert work.of_class(4) == Work.of_class(4) == (Work, 4, True)
        assert lock.synchronized(functools.partial(work, 6))() == (6, True)
        assert lock.synchronized(work)(7) == (7, True)
        assert lock.synchronized(json.dumps)([8]) == "[8]"

    @pytest.mark.parametrize(
        "function",
        [
            coroutine,
            async_generator,
            AsyncCall(),
            AsyncGeneratorCall(),
            AsyncCall().__call__,
            functools.partial(coroutine, 1),
            functools.partial(functools.partial(async_generator, 1), 2),
            functools.partial(AsyncCall(), 1),
            staticmethod(coroutine),
            classmethod(coroutine),
        ],
        ids=kind_of,
    )
    def test_asynchronous_functions_are_refused(self, client: lockring.Client, function: Any) -> None:
        with pytest.raises(InvalidRequest, match=r"lockring\.aio"):
            client.lock("x").synchronized(function)

    @pytest.mark.parametrize("thing", [None, 7, property(lambda self: 1), dict, AsyncCall], ids=kind_of)
    def test_objects_that_are_not_functions_are_refused(self, client: lockring.Client, thing: Any) -> None:
        with pytest.raises(InvalidRequest, match="functions and methods"):
            client.lock("x").synchronized(thing)

    def test_the_type_of_a_decorated_function_stays(self, client: lockring.Client) -> None:
        @overload
        def twice(value: int) -> int: ...
        @overload
        def twice(value: str) -> str: ...
        @client.lock("x").synchronized
        def twice(value: Any) -> Any:
            return 2 * value

        @client.lock("x").synchronized
        def steps() -> Generator[int, str, bytes]:
            yield 1
            return b""

        assert assert_type(twice(1), int) == 2
        assert assert_type(twice("a"), str) == "aa"
        assert next(assert_type(steps(), Generator[int, str, bytes])) == 1


class TestResults:
    @pytest.mark.parametrize(
        ("make", "what"),
        [
            (lambda: coroutine(), "an awaitable"),
            (lambda: async_generator(), "a generator"),
            (lambda: (each for each in [1]), "a generator"),
            (lambda: iter([1]), "an iterator"),
            (lambda: map(str, [1]), "an iterator"),
            (lambda: itertools.chain([1]), "an iterator"),
            (lambda: Counting(), "an iterator"),
            (lambda: manager(), "a context manager"),
            (lambda: async_manager(), "a context manager"),
            (lambda: AsyncCall()(), "an awaitable"),
            (lambda: Future(), "a future"),
            (lambda: contextlib.closing(each for each in [1]), "a context manager"),
            (lambda: (1, coroutine()), "an awaitable .* in a tuple"),
            (lambda: [1, iter([1])], "an iterator .* in a list"),
            (lambda: {"a": 1, "b": (each for each in [1])}, "a generator in a dict"),
            (lambda: {async_generator()}, "a generator in a set"),
            (lambda: deque([Future()]), "a future .* in a deque"),
            (lambda: [contextlib.closing(each for each in [1])], "a context manager in a list"),
            (lambda: [1, manager()], "a context manager in a list"),
        ],
        ids=kind_of,
    )
    def test_a_result_that_would_run_later_is_refused_and_the_lock_released(
        self, client: lockring.Client, is_held: Callable[[], bool], make: Callable[[], Any], what: str
    ) -> None:
        work = client.lock("x").synchronized(lambda: make())
        with pytest.raises(InvalidRequest, match=f"under the lock 'x' and returned {what}"):
            work()
        assert not is_held()

    def test_a_result_that_is_more_than_deferred_code_is_returned(self, client: lockring.Client) -> None:
        done: Future[int] = Future()
        done.set_result(1)
        with contextlib.closing(sqlite3.connect(":memory:")) as database, open(__file__) as file:
            for result in (
                [1],
                [None, "text", [iter([1])], done],
                {"a": 1, "b": file},
                contextlib.closing(database),
                "text",
                range(3),
                file,
                database.cursor(),
                done,
                contextlib.ExitStack(),
            ):
                assert client.lock("x").synchronized(lambda result=result: result)() is result


def run(server: LockServer, main: Callable[[AsyncClient], Any]) -> None:
    async def outer() -> None:
        async with AsyncClient(server.address) as client, asyncio.timeout(PATIENCE_S):
            await main(client)

    asyncio.run(outer())


class TestAsync:
    def test_an_asynchronous_generator_holds_the_lock_from_its_first_step_to_its_end(
        self, server: LockServer, is_held: Callable[[], bool]
    ) -> None:
        async def main(client: AsyncClient) -> None:
            seen: list[object] = []

            @client.lock("x").synchronized
            async def work(number: int) -> AsyncIterator[int]:
                assert is_held()
                seen.append((yield number))
                try:
                    yield number + 1
                except KeyError as error:
                    assert is_held()
                    seen.append(error)
                yield number + 2
                await asyncio.sleep(0)

            body: Any = work(7)
            assert not is_held()
            assert await anext(body) == 7
            assert await body.asend("sent") == 8
            error = KeyError("thrown")
            assert await body.athrow(error) == 9
            assert is_held()
            assert [each async for each in body] == []
            assert not is_held()
            assert seen == ["sent", error]
            body = work(1)
            await anext(body)
            await body.aclose()
            assert not is_held()

        run(server, main)

    def test_an_asynchronous_generator_takes_no_step_once_the_lock_is_lost(self, server: LockServer) -> None:
        async def main(client: AsyncClient) -> None:
            steps: list[int] = []

            @client.lock("x").synchronized
            async def work() -> AsyncIterator[int]:
                for number in itertools.count():
                    steps.append(number)
                    yield number

            body = work()
            await anext(body)
            server.lose("x")
            await asyncio.to_thread(server.wait_until, lambda: server.holders("x") == [])
            with pytest.raises(LockLost):
                await anext(body)
            assert steps == [0]

        run(server, main)

    def test_objects_partials_and_methods_of_all_kinds_can_be_decorated(
        self, server: LockServer, is_held: Callable[[], bool]
    ) -> None:
        async def main(client: AsyncClient) -> None:
            lock = client.lock("x")

            class Work:
                async def __call__(self, number: int) -> tuple[int, bool]:
                    return number, is_held()

                @lock.synchronized
                @staticmethod
                async def static(number: int) -> tuple[int, bool]:
                    return number, is_held()

                @lock.synchronized
                @classmethod
                async def of_class(cls, number: int) -> tuple[object, int, bool]:
                    return cls, number, is_held()

            assert await lock.synchronized(Work())(1) == (1, True)
            assert await lock.synchronized(functools.partial(Work(), 2))() == (2, True)
            assert await Work.static(3) == await Work().static(3) == (3, True)
            assert await Work().of_class(4) == (Work, 4, True)

        run(server, main)

    @pytest.mark.parametrize(
        "function",
        [lambda: None, manager, (lambda: (yield)), functools.partial(print)],
        ids=kind_of,
    )
    def test_functions_that_are_not_asynchronous_are_refused(self, server: LockServer, function: Any) -> None:
        with pytest.raises(InvalidRequest, match=r"lockring\.Client"):
            AsyncClient(server.address).lock("x").synchronized(function)

    @pytest.mark.parametrize(
        "make",
        [
            coroutine,
            async_generator,
            lambda: iter([1]),
            async_manager,
            lambda: [asyncio.ensure_future(coroutine())],
            lambda: {"a": asyncio.get_running_loop().create_future()},
        ],
        ids=kind_of,
    )
    def test_a_result_that_would_run_later_is_refused(
        self, server: LockServer, is_held: Callable[[], bool], make: Callable[[], Any]
    ) -> None:
        async def main(client: AsyncClient) -> None:
            @client.lock("x").synchronized
            async def work() -> Any:
                return make()

            with pytest.raises(InvalidRequest, match="which would run without it"):
                await work()
            assert not is_held()

        run(server, main)
