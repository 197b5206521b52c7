"""The blocking client's locks: what `Client.lock` and `Client.rwlock` give."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from lockring.client.arguments import Seconds, wait_to_ms
from lockring.client.blocking.grants import Grant
from lockring.client.blocks import Blocks, waits_for_itself
from lockring.client.decorators import synchronized
from lockring.client.process_bound import ProcessBound
from lockring.errors import AcquireTimeout
from lockring.protocol import Mode

if TYPE_CHECKING:
    from lockring.client.blocking.client import Client

F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, ..., Any]")


class Lock(ProcessBound):
    """A lock's name and how it is to be leased. Make one wherever it is needed, or share it.

    `with lock as grant:` waits for the lock and never runs the block without it. One object may be entered many times at
    once, and a block be left by another thread or task than entered it: each `with` statement gives back what it got. Where an
    exit stack, or a call, enters and leaves several of one object, it cannot be known which is meant: give it a grant,
    as in `stack.enter_context(lock.acquire())`, which is exact.
    """

    _instead = "pass the addresses of the servers and the lock's name, and make a client and a lock there"

    __slots__ = ("_blocks", "_client", "_mode", "_name", "_other", "_ttl_ms")

    def __init__(self, client: Client, name: str, ttl_ms: int, mode: Mode = Mode.EXCLUSIVE) -> None:
        self._client = client
        self._name = name
        self._ttl_ms = ttl_ms
        self._mode: int = mode.value  # an enumeration takes longer to compare and to send
        # Of a lock to read, the one to write, and the reverse.
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
            InvalidRequest: the timeout is none, the cluster allows no such TTL, or the call comes from inside of a
                `with` statement on the other side of the same `RWLock`.
            ClientClosed: the client was closed.
        """
        if self._other is not None and self._other._blocks.hold_around(sys._getframe()):
            raise waits_for_itself(self._name, shared=self.shared)
        return self._client._acquire(self._name, self._ttl_ms, wait_to_ms(timeout), self._mode)

    def try_acquire(self, *, timeout: Seconds = 0) -> Grant | None:
        """Like `acquire`, but return None where that raises `AcquireTimeout`; without a timeout, do not wait for others."""
        try:
            return self.acquire(timeout=timeout)
        except AcquireTimeout:
            return None

    def synchronized(self, function: F) -> F:
        """Decorate a function so that each call of it runs under the lock.

        Of a generator function, whether asynchronous or not, the lock is held while it runs: from the first step until it ends or
        is closed. Methods of all kinds can be decorated; a class or a property cannot.

        Raises:
            InvalidRequest: it is a coroutine function here, or none in the asyncio client; or it cannot be called. A call raises it
                where what comes back would run without the lock: a coroutine, a generator, an iterator.
        """
        decorated: F = synchronized(self, function)
        return decorated

    def __enter__(self) -> Grant:
        grant = self.acquire()
        self._blocks.enter(grant, sys._getframe(1))
        return grant

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.leave(self._name, sys._getframe(1)).__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<Lock {self._name!r}{', shared' if self.shared else ''}, ttl {self.ttl:g} s>"


class RWLock(ProcessBound):
    """A lock that many may hold to read, or one to write.

    `read()` and `write()` give locks to acquire as usual. Who waits is served first come, first served: readers that come
    after a waiting writer wait for it, so no writer starves. `write()` is the same lock as `Client.lock` gives for that name.

    Neither side is reentrant, nor can one be turned into the other while it is held: who holds it to read and waits to write
    waits for itself. Where that is certain, since the call comes from inside of a `with` statement on the other side of
    the same object, it is refused. Two reads of one caller, one inside the other, wait for ever if a writer has
    come between them.
    """

    _instead = "pass the addresses of the servers and the lock's name, and make a client and a lock there"

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
