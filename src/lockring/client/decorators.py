"""The functions that `Lock.synchronized` returns: no part of the decorated function runs without the lock.

Rules:

- Code that a call leaves to run later counts, not only the call. Generators, including asynchronous ones, hold the
  lock from their first step to their end; before each further step they check that the lock has not been lost.
- Code for which the lock cannot be held that long is refused: when the function is decorated if that can be seen then,
  else when the function returns it, alone or in a tuple, list, set, deque or dict. Deeper nesting cannot be judged, nor
  can calls of a partial or of an object of the program's own.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import sys
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

from lockring.client.grant_state import GrantState, is_kind
from lockring.errors import InvalidRequest

AnyFunction = Callable[..., Any]

Function = TypeVar("Function", bound="Callable[..., Any] | classmethod[Any, ..., Any]")
AsyncFunction = TypeVar(
    "AsyncFunction",
    bound="Callable[..., Awaitable[Any]] | Callable[..., AsyncIterator[Any]] | classmethod[Any, ..., Any]",
)


class LockToEnter(Protocol):
    """A lock of the blocking client, as its decorated functions use it."""

    @property
    def name(self) -> str:
        """The lock's name."""

    def __enter__(self) -> GrantState: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class AsyncLockToEnter(Protocol):
    """A lock of the asyncio client, as its decorated functions use it."""

    @property
    def name(self) -> str:
        """The lock's name."""

    def __aenter__(self) -> Coroutine[Any, Any, GrantState]: ...
    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> Coroutine[Any, Any, None]: ...


_OF_ITERATORS: Final = frozenset({"send", "throw", "close", "asend", "athrow", "aclose", "from_iterable"})
"""Public methods that an object may have and still be nothing but an iterator."""


def synchronized(lock: LockToEnter, function: Any) -> Any:
    """Decorate a function for the blocking client.

    Raises:
        InvalidRequest: it is asynchronous, or cannot be called.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(synchronized(lock, function.__func__))
    _check_function(function)
    if is_kind(inspect.iscoroutinefunction, function) or is_kind(inspect.isasyncgenfunction, function):
        raise InvalidRequest(f"{_name(function)} is a coroutine function: use lockring.aio", name=lock.name)
    if is_kind(inspect.isgeneratorfunction, function):

        @functools.wraps(function)
        def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with lock as grant:
                body = function(*args, **kwargs)
                try:
                    value = next(body)
                    while True:
                        try:
                            sent = yield value
                        except GeneratorExit:
                            body.close()
                            raise
                        except BaseException as error:  # noqa: BLE001 - passed on to the generator
                            value = body.throw(error)
                        else:
                            loss = grant._loss
                            value = body.send(sent) if loss is None else body.throw(loss)
                except StopIteration as end:
                    return _over(lock.name, function, end.value)

        return steps

    @functools.wraps(function)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return _over(lock.name, function, function(*args, **kwargs))

    return locked


def synchronized_async(lock: AsyncLockToEnter, function: Any) -> Any:
    """Decorate a coroutine function, or an asynchronous generator function, for the asyncio client.

    Raises:
        InvalidRequest: it is neither.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(synchronized_async(lock, function.__func__))
    _check_function(function)
    if is_kind(inspect.isasyncgenfunction, function):

        @functools.wraps(function)
        async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            async with lock as grant:
                body = function(*args, **kwargs)
                try:
                    value = await anext(body)
                    while True:
                        try:
                            sent = yield value
                        except GeneratorExit:
                            await body.aclose()
                            raise
                        except BaseException as error:  # noqa: BLE001 - passed on to the generator
                            value = await body.athrow(error)
                        else:
                            loss = grant._loss
                            value = await (body.asend(sent) if loss is None else body.athrow(loss))
                except StopAsyncIteration:
                    return

        return steps
    if not is_kind(inspect.iscoroutinefunction, function):
        raise InvalidRequest(
            f"{_name(function)} is not a coroutine function: use lockring.Client, or wrap it in an `async def`",
            name=lock.name,
        )

    @functools.wraps(function)
    async def locked(*args: Any, **kwargs: Any) -> Any:
        async with lock:
            return _over(lock.name, function, await function(*args, **kwargs))

    return locked


def _check_function(function: Any) -> None:
    if inspect.isclass(function) or not callable(function):
        raise InvalidRequest(
            f"synchronized decorates functions and methods, not {function!r}: decorate what must run under the lock"
        )


def _name(function: AnyFunction) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _over(lock: str, function: AnyFunction, result: Any) -> Any:
    """Check and return the result of a function that ends now, as does its hold of the lock.

    Raises:
        InvalidRequest: the result is code that would run later, without the lock.
    """
    if result is None:
        return result
    what, items = _lazy(result), [result]
    if what is None:
        items = _suspects(result)
        found = [each for each in map(_lazy, items) if each is not None]
        if not found:
            return result
        what = f"{found[0]} in a {type(result).__name__}"
    for each in items:
        if inspect.iscoroutine(each) and inspect.getcoroutinestate(each) == inspect.CORO_CREATED:
            each.close()  # else it would be reported as never awaited
    raise InvalidRequest(
        f"{_name(function)} ran under the lock {lock!r} and returned {what}, which would run without it: "
        "decorate what it runs, or return its outcome (a list of an iterator's items)",
        name=lock,
    )


def _suspects(result: Any) -> list[Any]:
    """Return the items of a container that may be code still to run."""
    if isinstance(result, dict):
        items: Iterable[Any] = itertools.chain(result.values(), result)
        kinds = {*map(type, result.values()), *map(type, result)}
    elif isinstance(result, (tuple, list, set, frozenset, deque)):
        items, kinds = result, set(map(type, result))
    else:
        return []
    # By type first: the result may have millions of rows.
    suspected = {kind for kind in kinds if _may_be_lazy(kind)}
    return [each for each in items if type(each) in suspected] if suspected else []


def _may_be_lazy(kind: type) -> bool:
    """Return whether `_lazy` may find objects of this type."""
    if any(hasattr(kind, name) for name in ("__next__", "__anext__", "__await__", "__aenter__")):
        return True
    futures = sys.modules.get("concurrent.futures")
    return issubclass(kind, (contextlib.ContextDecorator, contextlib.closing)) or (
        futures is not None and issubclass(kind, futures.Future)
    )


def _lazy(result: Any) -> str | None:
    """Return a description of a result that is code still to run, None for any other result."""
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return "a generator"
    if inspect.isawaitable(result):
        return f"an awaitable ({type(result).__name__})"
    if isinstance(result, (Iterator, AsyncIterator)):
        # A file or a cursor may be iterated, and is returned for other reasons too.
        offers = {name for name in dir(type(result)) if not name.startswith("_")}
        return f"an iterator ({type(result).__name__})" if offers <= _OF_ITERATORS else None
    is_closing = isinstance(result, (contextlib.closing, contextlib.aclosing))
    if is_closing or isinstance(result, contextlib.ContextDecorator) or hasattr(type(result), "__aenter__"):
        body = getattr(result, "thing" if is_closing else "gen", None)
        return "a context manager" if inspect.isgenerator(body) or inspect.isasyncgen(body) else None
    futures = sys.modules.get("concurrent.futures")
    if futures is not None and isinstance(result, futures.Future) and not result.done():
        return "a future that is not done"
    return None
