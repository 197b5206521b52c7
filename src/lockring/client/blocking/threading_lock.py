"""A distributed lock with the face of `threading.Lock`."""

from __future__ import annotations

import sys
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from lockring.client.blocking.grants import Grant
from lockring.client.blocks import Blocks
from lockring.client.process_bound import ProcessBound
from lockring.errors import InvalidRequest
from lockring.units import DURATION_S_MAX

if TYPE_CHECKING:
    from lockring.client.blocking.locks import Lock

_FOREVER: Final = -1


class ThreadingLock(ProcessBound):
    """A lock with the methods of `threading.Lock`, for code that expects one.

    Like `threading.Lock`, it can be released by any thread, and it is not reentrant. Unlike it, its lease can be lost:
    then `locked` returns False, and `release` raises `LockLost`. If several threads of this process share the object,
    a `with` statement releases exactly the grant that it acquired. A direct call of `release` releases the grant that
    its own thread acquired last; if the thread acquired none, it takes a lost grant before one that is still held.
    """

    _instead = "pass the addresses of the servers and the lock's name, and make a client and a lock there"

    __slots__ = ("__weakref__", "_blocks", "_lock")

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._blocks: Blocks[Grant] = Blocks()

    def acquire(self, blocking: bool = True, timeout: float = _FOREVER) -> bool:
        """Acquire the lock, as `threading.Lock.acquire` does. Returns whether the lock was acquired.

        Args:
            blocking: whether to wait for other holders.
            timeout: longest wait in seconds, up to `threading.TIMEOUT_MAX`; -1 waits forever.

        Raises:
            ValueError: the timeout is negative, or given although `blocking` is False (`InvalidRequest`).
            OverflowError: the timeout is longer than `threading.TIMEOUT_MAX`.
            TypeError: the timeout is not a number.
            Unavailable, ClientClosed: as for `Lock.acquire`.
        """
        return self._acquire(None, _wait_s(blocking, timeout))

    def release(self) -> None:
        """Release the lock.

        Raises:
            RuntimeError: this object does not hold the lock (`NotHeld`).
            LockLost: the lock was lost.
        """
        self._blocks.leave(self._lock.name, None).release()

    def locked(self) -> bool:
        """Return whether this object holds the lock."""
        return any(grant.held for grant in self._blocks.grants())

    @property
    def grant(self) -> Grant | None:
        """The newest grant that was not released, with its fencing token; None if there is none."""
        return next(iter(self._blocks.grants()), None)

    def _acquire(self, frame: FrameType | None, wait_s: float | None) -> bool:
        grant = self._lock.acquire() if wait_s is None else self._lock.try_acquire(timeout=wait_s)
        if grant is None:
            return False
        self._blocks.enter(grant, frame)
        return True

    def __enter__(self) -> bool:
        return self._acquire(sys._getframe(1), None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.leave(self._lock.name, sys._getframe(1)).__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} ThreadingLock {self._lock.name!r}>"


def _wait_s(blocking: Any, timeout: Any) -> float | None:
    """Return the wait in seconds, None for no limit, by the rules and errors of `threading.Lock.acquire`."""
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not blocking:
        if timeout != _FOREVER:
            raise InvalidRequest("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout == _FOREVER:
        return None
    if not timeout >= 0:  # also true of NaN
        raise InvalidRequest(
            f"timeout must be -1 or a number of seconds that is not negative, not {timeout!r}"
        )
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError(f"timeout must be threading.TIMEOUT_MAX at most, not {timeout!r}")
    return None if timeout > DURATION_S_MAX else timeout
