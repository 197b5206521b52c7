"""The asyncio client's locks, as returned by `Client.lock` and `Client.rwlock`."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Final

from lockring.client.aio._support import Driver, current_task
from lockring.client.aio.grants import Grant, acquire_in_span
from lockring.client.arguments import Seconds, wait_to_ms
from lockring.client.blocks import Blocks, waits_for_itself
from lockring.client.decorators import AsyncFunction, synchronized_async
from lockring.client.process_bound import ProcessBound
from lockring.client.tracing import SDK
from lockring.errors import AcquireTimeout
from lockring.ids import LockName
from lockring.protocol import WAIT_FOREVER, Mode

# Plain numbers: a member of an enumeration takes longer to compare and to send.
_EXCLUSIVE: Final[int] = Mode.EXCLUSIVE.value
_SHARED: Final[int] = Mode.SHARED.value


class Lock(ProcessBound):
    """A lock's name and the lease that its grants get. Create one wherever you need it, or share it.

    `async with lock as grant:` waits for the lock and never runs the block without it. The same object can be entered
    many times at once, and a block can be left by another task than the one that entered it: each `async with`
    statement releases exactly what it acquired. If you enter and leave one object several times through an exit stack
    or by hand, there is no way to tell which entry an exit belongs to. Enter a grant instead, as in
    `stack.enter_async_context(await lock.acquire())`, which is exact.
    """

    _instead = "pass the addresses of the servers and the lock's name, and make a client and a lock there"

    __slots__ = ("_blocks", "_driver", "_mode", "_name", "_other", "_ttl_ms")

    def __init__(self, driver: Driver, name: LockName, ttl_ms: int, mode: int = _EXCLUSIVE) -> None:
        self._driver = driver
        self._name = name
        self._ttl_ms = ttl_ms
        self._mode = mode
        # The other side of an `RWLock`: the write lock of a read lock, and the reverse.
        self._other: Lock | None = None
        self._blocks: Blocks[Grant] = Blocks()

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
        """Whether this is a read lock, which any number of readers can hold at once."""
        return self._mode == _SHARED

    async def acquire(self, *, timeout: Seconds | None = None) -> Grant:
        """Wait for the lock and return its grant. Waiters are served first come, first served.

        Args:
            timeout: longest wait in seconds, None for no limit (but see the client's `connect_timeout`). A server
                always gets one second to answer, however short the timeout.

        Raises:
            AcquireTimeout: other clients held the lock for the whole time.
            Unavailable: no server could be reached, or none may serve the lock at present.
            InvalidRequest: `timeout` is not a number of seconds, the cluster does not allow the TTL, or the call
                comes from inside a `with` statement on the other side of the same `RWLock`.
            ClientClosed: the client was closed.
        """
        if self._other is not None and self._other._blocks.hold_around(sys._getframe()):
            raise waits_for_itself(self._name, shared=self.shared)
        wait_ms = WAIT_FOREVER if timeout is None else wait_to_ms(timeout)
        if SDK in sys.modules:
            return await acquire_in_span(self._driver, self._name, self._ttl_ms, wait_ms, self._mode)
        return await self._driver.acquire(Grant, self._name, self._ttl_ms, wait_ms, self._mode)

    async def try_acquire(self, *, timeout: Seconds = 0) -> Grant | None:
        """Acquire the lock, or return None where `acquire` raises `AcquireTimeout`. By default it does not wait for
        other holders."""
        try:
            return await self.acquire(timeout=timeout)
        except AcquireTimeout:
            return None

    def synchronized(self, function: AsyncFunction) -> AsyncFunction:
        """Decorate a coroutine function so that each call runs under the lock.

        An asynchronous generator function holds the lock while it runs: from its first step until it ends or is
        closed. Methods of all kinds can be decorated; classes and properties cannot.

        Raises:
            InvalidRequest: `function` is not a coroutine function or an asynchronous generator function. A call
                raises it if it returns something that would run later, without the lock: a coroutine, a generator, an
                iterator, or a tuple, list, set, deque or dict that holds one. What a partial or an object of your own
                does when it is called cannot be seen: return what it would give.
        """
        decorated: AsyncFunction = synchronized_async(self, function)
        return decorated

    # Not coroutine functions: `Blocks` needs the frame of the `async with`, which must be the direct caller.

    def __aenter__(self) -> Coroutine[Any, Any, Grant]:
        return self._enter(sys._getframe(1))

    async def _enter(self, frame: FrameType) -> Grant:
        grant = await self.acquire()
        self._blocks.enter(grant, frame, current_task())
        return grant

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Coroutine[Any, Any, None]:
        grant = self._blocks.leave(self._name, sys._getframe(1), current_task())
        return grant.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Lock {self._name!r}{', shared' if self.shared else ''}, ttl {self.ttl:g} s>"


class RWLock(ProcessBound):
    """A lock that many readers or one writer can hold.

    `read()` and `write()` return locks to acquire as usual. Waiters are served first come, first served: readers that
    come after a waiting writer wait for it, so no writer starves. `write()` is the same lock as `Client.lock` returns
    for that name.

    Neither side is reentrant, and a held lock cannot be upgraded or downgraded: a caller that holds the read lock and
    waits for the write lock waits for itself. Where that is certain, because the call comes from inside a `with`
    statement on the other side of the same object, the call is refused. Nested reads by one caller deadlock if a
    writer has queued up between them.
    """

    _instead = "pass the addresses of the servers and the lock's name, and make a client and a lock there"

    __slots__ = ("_name", "_read", "_ttl_ms", "_write")

    def __init__(self, driver: Driver, name: LockName, ttl_ms: int) -> None:
        self._name = name
        self._ttl_ms = ttl_ms
        self._read = Lock(driver, name, ttl_ms, _SHARED)
        self._write = Lock(driver, name, ttl_ms)
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
        """Return the read lock: any number of readers can hold it at once, but not while there is a writer.

        Each grant has its own fencing token, greater than that of every earlier writer.
        """
        return self._read

    def write(self) -> Lock:
        """Return the write lock: one writer holds it, while there is no reader and no other writer."""
        return self._write

    def __repr__(self) -> str:
        return f"<RWLock {self._name!r}, ttl {self.ttl:g} s>"
