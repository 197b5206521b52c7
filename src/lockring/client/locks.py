"""The blocking client's locks: what `Client.lock` and `Client.rwlock` give."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from lockring.client.arguments import Seconds, wait_to_ms
from lockring.client.grants import Grant
from lockring.errors import AcquireTimeout, InvalidRequest, NotHeld
from lockring.messages import Mode

if TYPE_CHECKING:
    from lockring.client.blocking import Client

P = ParamSpec("P")
R = TypeVar("R")


class Lock:
    """A lock's name and how it is to be leased. It holds no state: make one wherever it is needed, or share it.

    `with lock as grant:` waits for the lock and never runs the block without it.
    """

    __slots__ = ("_client", "_entered", "_mode", "_name", "_other", "_ttl_ms")

    def __init__(self, client: Client, name: str, ttl_ms: int, mode: Mode = Mode.EXCLUSIVE) -> None:
        self._client = client
        self._name = name
        self._ttl_ms = ttl_ms
        self._mode: int = mode.value  # an enumeration takes longer to compare and to send
        # Of a lock to read, the one to write, and the reverse.
        self._other: Lock | None = None
        # The grants of `with` blocks that are being run, by thread, innermost last.
        self._entered: dict[int, list[Grant]] = {}

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._name

    @property
    def ttl(self) -> float:
        """The lease that its grants get, in seconds."""
        return self._ttl_ms / 1000

    @property
    def shared(self) -> bool:
        """Whether others may hold it at the same time, to read as well."""
        return self._mode == Mode.SHARED

    def acquire(self, *, timeout: Seconds | None = None) -> Grant:
        """Wait for the lock and return its grant. Who waits is served first come, first served.

        Args:
            timeout: longest wait in seconds, None for ever (but see the client's `connect_timeout`). However short it is, a
                server gets a second to answer.

        Raises:
            AcquireTimeout: others held it all the time.
            Unavailable: no server could be reached, or none may serve the lock at present.
            InvalidRequest: the timeout is none, the cluster allows no such TTL, or the caller is in a block that holds the
                other side of the same `RWLock`.
            ClientClosed: the client was closed.
        """
        if self._other is not None:
            self._check_not_inside(self._other)
        return self._client._acquire(self._name, self._ttl_ms, wait_to_ms(timeout), self._mode)

    def try_acquire(self, *, timeout: Seconds = 0) -> Grant | None:
        """Like `acquire`, but return None where that raises `AcquireTimeout`; without a timeout, do not wait for others."""
        try:
            return self.acquire(timeout=timeout)
        except AcquireTimeout:
            return None

    def synchronized(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function so that each call of it runs under the lock.

        Raises:
            InvalidRequest: it is a coroutine function here, or none in the asyncio client.
        """
        if inspect.iscoroutinefunction(function):
            raise InvalidRequest(f"{function.__name__} is a coroutine function: use lockring.aio")

        @functools.wraps(function)
        def locked(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return locked

    def __enter__(self) -> Grant:
        grant = self.acquire()
        self._entered.setdefault(threading.get_ident(), []).append(grant)
        return grant

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        me = threading.get_ident()
        grants = self._entered[me]
        grant = grants.pop()
        if not grants:
            del self._entered[me]
        grant.__exit__(kind, error, trace)

    def _check_not_inside(self, other: Lock) -> None:
        """Refuse to wait for oneself, in a block that holds the other side."""
        if any(grant.held for grant in other._entered.get(threading.get_ident(), ())):
            has, wants = ("write", "read") if self.shared else ("read", "write")
            raise InvalidRequest(
                f"the caller holds {self._name!r} to {has} and would wait for itself to {wants}: release it first",
                name=self._name,
            )

    def __repr__(self) -> str:
        return f"<Lock {self._name!r}{', shared' if self.shared else ''}, ttl {self.ttl:g} s>"


class RWLock:
    """A lock that many may hold to read, or one to write.

    `read()` and `write()` give locks to acquire as usual. Who waits is served first come, first served: readers that come
    after a waiting writer wait for it, so no writer starves. `write()` is the same lock as `Client.lock` gives for that name.

    Neither side is reentrant, nor can one be turned into the other while it is held: who holds it to read and waits to write
    waits for itself. Where that is seen, in a `with` block of the same object, it is refused. Two reads of one
    caller, one inside the other, wait for ever if a writer has come between them.
    """

    __slots__ = ("_name", "_read", "_ttl_ms", "_write")

    def __init__(self, client: Client, name: str, ttl_ms: int) -> None:
        self._name = name
        self._ttl_ms = ttl_ms
        self._read = Lock(client, name, ttl_ms, Mode.SHARED)
        self._write = Lock(client, name, ttl_ms)
        self._read._other, self._write._other = self._write, self._read

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._name

    @property
    def ttl(self) -> float:
        """The lease that its grants get, in seconds."""
        return self._ttl_ms / 1000

    def read(self) -> Lock:
        """The lock to read under: any number may hold it at once, as long as nobody holds it to write.

        Each grant has a fencing token of its own, greater than that of every earlier writer.
        """
        return self._read

    def write(self) -> Lock:
        """The lock to write under: held by one, while nobody else holds it to read or to write."""
        return self._write

    def __repr__(self) -> str:
        return f"<RWLock {self._name!r}, ttl {self.ttl:g} s>"


class ThreadingLock:
    """A lock with the methods of `threading.Lock`, for code that expects one.

    Like that, it may be released by another thread, and is not reentrant. Its lease may be lost: then `release` raises
    `LockLost`, and `locked` is false.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._grant: Grant | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock, as `threading.Lock.acquire` does; True on success."""
        if not blocking and timeout != -1:
            raise InvalidRequest("a timeout makes no sense without waiting")
        grant: Grant | None
        if blocking and timeout == -1:
            grant = self._lock.acquire()
        else:
            grant = self._lock.try_acquire(timeout=timeout if blocking else 0)
        if grant is None:
            return False
        self._grant = grant
        return True

    def release(self) -> None:
        """Release the lock.

        Raises:
            RuntimeError: it is not locked by this object (`NotHeld`).
            LockLost: it was lost.
        """
        grant, self._grant = self._grant, None
        if grant is None:
            raise NotHeld(f"the lock {self._lock.name!r} is not held by this object", name=self._lock.name)
        grant.release()

    def locked(self) -> bool:
        """Whether this object holds the lock."""
        return self._grant is not None and self._grant.held

    @property
    def grant(self) -> Grant | None:
        """The present grant, with its fencing token; None while not locked."""
        return self._grant

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
