"""Count the instructions of a thread by single steps (ptrace, Linux on x86-64).

A step costs some microseconds, ten thousand times the instruction. So only what is in question is stepped: the thread
runs at full speed before and after. The kernel's own instructions are not seen; its calls are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_CONT: Final = 7
_STEP: Final = 9
_SYSCALL: Final = 24
_PEEKTEXT: Final = 1
_PEEKUSER: Final = 3
_DETACH: Final = 17
_SYSCALL_INFO: Final = 0x420E
_INFO_BYTES: Final = 88
_ENTRY: Final = 1
_TRACE_SYSCALLS_APART: Final = 1
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_ALL_CHILDREN: Final = 0x4000_0000

_RIP: Final = 16 * 8
_RAX: Final = 10 * 8
_SYSCALL_BYTES: Final = 0x050F

WAITS: Final = frozenset({7, 23, 219, 232, 270, 271, 281, 441})
"""The numbers of poll, select, restart_syscall (poll, gone on), epoll_wait, pselect6, ppoll, epoll_pwait(2)."""

WRITES: Final = frozenset({1, 18, 20, 44, 46, 296, 307})
"""The numbers of write, pwrite64, writev, sendto, sendmsg, pwritev and sendmmsg."""

_QUIET_S: Final = 0.02
_POLL_S: Final = 0.0005
_FREE_S: Final = 0.03
"""The time for a thread to catch up with its timers before the next count."""

_WAIT_S_MAX: Final = 120.0

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class CannotStep(RuntimeError):
    """Single steps are not allowed here, or a thread did not do what was awaited."""


class Count(NamedTuple):
    """The work of a stretch.

    Attributes:
        instructions: those outside the kernel. A repeated string instruction counts once.
        syscalls: calls of the kernel.
    """

    instructions: int
    syscalls: int

    def __add__(self, other: object) -> Count:
        """Return the sum of two counts."""
        assert isinstance(other, Count)
        return Count(self.instructions + other.instructions, self.syscalls + other.syscalls)


NOTHING: Final = Count(0, 0)


def obstacle() -> str:
    """Return the reason that rules out single steps on this machine, "" for none."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"instructions are counted on Linux and x86-64 only, and this is {platform.machine()}"
    return ""


class Stepped:
    """A thread under control of this one, which must be the only caller. As a context manager it lets go at the end.

    Args:
        thread: its id.

    Raises:
        CannotStep: the system does not allow it.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread
        self._is_syscall: dict[int, bool] = {}
        self._entered = -1
        if _libc.ptrace(_SEIZE, thread, None, _TRACE_SYSCALLS_APART) == -1:
            raise CannotStep(f"cannot step thread {thread}: {os.strerror(ctypes.get_errno())}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, CannotStep):
            self._pause()
            self._ask(_DETACH)

    def between_signals(self, number: signal.Signals, start: Callable[[], None]) -> Count:
        """Count the work between two signals that the thread sends to itself; neither arrives.

        Args:
            number: of the signal.
            start: lets the thread begin.
        """
        start()
        while self._wait() != number:
            self._ask(_CONT)
        instructions = syscalls = 0
        last = self._peek(_RIP)
        while True:
            syscalls += self._is_at_syscall(last)
            self._ask(_STEP)
            if self._wait() == number:
                break
            place = self._peek(_RIP)
            instructions += place != last
            last = place
        self._ask(_CONT)
        return Count(instructions, syscalls - 1)  # the last one sent the signal

    def turns(
        self, start: Callable[[], None], is_done: Callable[[], bool], stepped: int | None = None
    ) -> list[Count]:
        """Return the work of each turn of the thread's loop, from an event to the first write or else the next wait.

        After its first write a turn may run timers, which fall due since each step is so slow.

        Args:
            start: causes the first event, while the thread waits for it.
            is_done: whether everything is done apart from this thread's last turn.
            stepped: the turn to count, from 0; the others run at full speed, and count as nothing. None for no turn.

        Raises:
            CannotStep: it is not done in time.
        """
        found: list[Count] = []
        self._pause()
        self._ask(_SYSCALL)
        self._run(lambda: True, lambda: None)
        start()

        def turn() -> None:
            found.append(self._to_write() if len(found) == stepped else NOTHING)

        self._run(is_done, turn)
        self._pause()
        self._free()
        return found

    def _run(self, is_done: Callable[[], bool], turn: Callable[[], None]) -> None:
        """Let the thread run, with a call for each wait that ends with events, until it is done and stays in a wait."""
        stopped_at_s = time.monotonic()
        end_s = stopped_at_s + _WAIT_S_MAX
        quiet_since_s: float | None = None
        while True:
            thread, status = os.waitpid(self._thread, os.WNOHANG | _ALL_CHILDREN)
            if thread:
                stopped_at_s = time.monotonic()
                quiet_since_s = None
                if self._is_end_of_wait(status):
                    turn()
                self._ask(_SYSCALL)
                continue
            now_s = time.monotonic()
            if now_s > end_s:
                raise CannotStep(f"thread {self._thread} is not done after {_WAIT_S_MAX:g} s")
            if not is_done():
                quiet_since_s = None
            elif quiet_since_s is None:
                quiet_since_s = now_s
            elif now_s > quiet_since_s + _QUIET_S:
                return
            if now_s > stopped_at_s + _POLL_S:  # until then, another stop is likely
                time.sleep(_POLL_S)

    def _is_end_of_wait(self, status: int) -> bool:
        """Return whether the thread has just returned from a wait, with events."""
        if not os.WIFSTOPPED(status):
            raise CannotStep(f"thread {self._thread} has ended")
        if os.WSTOPSIG(status) != _SYSCALL_STOP:
            return False
        info = ctypes.create_string_buffer(_INFO_BYTES)
        _libc.ptrace(_SYSCALL_INFO, self._thread, len(info), ctypes.addressof(info))
        kind, value = struct.unpack_from("=B23xq", info.raw)
        if kind == _ENTRY:
            self._entered = value
            return False
        return self._entered in WAITS and value > 0

    def _pause(self) -> None:
        """Stop the thread, wherever it is."""
        thread, status = os.waitpid(self._thread, os.WNOHANG | _ALL_CHILDREN)
        if not thread:
            self._ask(_INTERRUPT)
            _, status = os.waitpid(
                self._thread, _ALL_CHILDREN
            )  # any stop will do: it takes the request's place
        if not os.WIFSTOPPED(status):
            raise CannotStep(f"thread {self._thread} has ended")

    def _free(self) -> None:
        """Let a stopped thread run at full speed."""
        self._ask(_CONT)
        time.sleep(_FREE_S)
        # A stop of its own that crossed the request for one leaves the request open for now.
        while os.waitpid(self._thread, os.WNOHANG | _ALL_CHILDREN)[0]:
            self._ask(_CONT)
            time.sleep(_FREE_S)

    def _to_write(self) -> Count:
        """Step up to and including the first write, or up to the next wait for events."""
        instructions = syscalls = 0
        last = self._peek(_RIP)
        while True:
            if self._is_at_syscall(last):
                number = self._peek(_RAX)
                if number in WAITS:
                    return Count(instructions, syscalls)
                syscalls += 1
                if number in WRITES:
                    return Count(instructions + 1, syscalls)
            self._ask(_STEP)
            self._wait()
            place = self._peek(_RIP)
            instructions += place != last
            last = place

    def _is_at_syscall(self, place: int) -> bool:
        known = self._is_syscall.get(place)
        if known is None:
            known = (self._ask(_PEEKTEXT, place) & 0xFFFF) == _SYSCALL_BYTES
            self._is_syscall[place] = known
        return known

    def _peek(self, offset: int) -> int:
        return self._ask(_PEEKUSER, offset)

    def _ask(self, request: int, address: int = 0) -> int:
        return int(_libc.ptrace(request, self._thread, address, 0))

    def _wait(self) -> int:
        """Wait until the thread stops, and return the signal."""
        _, status = os.waitpid(self._thread, _ALL_CHILDREN)
        if not os.WIFSTOPPED(status):
            raise CannotStep(f"thread {self._thread} has ended")
        return os.WSTOPSIG(status)
