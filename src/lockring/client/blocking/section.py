"""One section at a time, whatever interrupts it.

The state of the blocking client is changed in sections, under one lock. Three things may come between any two steps
of a section, in its own thread: a signal's handler or a finalizer that calls the client again, an exception that one
of them raises (as Ctrl-C does), and an error of the section itself. None of them may leave a thread waiting:

- The lock lets its own thread in again, so that no thread waits for itself. Such a reentrant call finds things half
  done. It may leave work that needs no answer to the end of the section (`_defer`); any other call is refused at once
  (`ReentrantCall`).
- A thread that is in one client's section does not wait for another client's: two threads could wait for each other.
  Its call is treated as a reentrant one.
- A section that ends with an exception has left things half done. The next section mends that first, and is given the
  exception.
- No thread waits for another one while in a section: a finalizer in the other thread may call the client, and wait for
  the section. Starting threads, setting events and writing logs may wait for others, so these are chores, done after
  the section.

The clock is read inside, after the network, so that no answer is judged by an older time than another thread has
already seen.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from lockring.clock import monotonic_ns
from lockring.errors import ReentrantCall

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Section:
    """The base of a class that does its work in sections.

    Attributes:
        _lock: held in each section; also guards state that is only read or added to (see `locked`).
        _busy: whether some thread is in a section.
        _torn: the exception that ended a section in its middle, until that is mended.
        _later: work that was left to the end of a section.
        _chores: work for outside sections, done by the next thread that leaves one.
        _choring: by thread, a lock that the thread holds while it does chores. A call that interrupts it there must not
            wait, since it may wait for the rest of those chores.
    """

    def __init__(self) -> None:
        self._open_sections()

    def _open_sections(self) -> None:
        """Start with a lock that no thread holds: at first, and in the child of a fork."""
        self._lock = threading.RLock()
        self._busy = False
        self._torn: BaseException | None = None
        self._later: deque[Callable[[int], object]] = deque()
        self._chores: deque[Callable[[], object]] = deque()
        self._choring: dict[int, Any] = {}
        key = id(self)
        _sections[key] = weakref.ref(self, lambda _: _sections.pop(key, None))

    def _mend(self, now_ns: int, cause: BaseException) -> None:
        """Mend the state that a section left half done when it ended with `cause`."""
        raise NotImplementedError

    def _rouse(self) -> None:
        """Have some thread enter a section soon."""
        raise NotImplementedError

    def _inside(self, work: Callable[[int, *Ts], R], *arguments: *Ts) -> R:
        """Do `work` in a section. Its first argument is the time; an exception that it raises tears the section.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        if self._busy and not self._may_enter():
            raise self._reentrant()
        with self._lock:
            # No handler or finalizer runs between these two steps: the interpreter checks for them after calls.
            self._busy = True
            try:
                now_ns = monotonic_ns()
                if self._torn is not None:
                    self._mend(now_ns, self._torn)
                    self._torn = None
                result = work(now_ns, *arguments)
                while self._later:
                    self._later.popleft()(now_ns)
                self._busy = False
            except BaseException as error:
                self._busy = False
                self._torn = error
                raise
        if self._chores:
            self._see_to_chores()
        return result

    @staticmethod
    def _reentrant() -> ReentrantCall:
        return ReentrantCall(
            "a signal handler or a finalizer called the client while its thread was in the middle of the client's own"
            " work, so nothing was done: try again later, or from another thread"
        )

    def _defer(self, work: Callable[[int], object]) -> None:
        """Leave work to the end of the section that this thread is in, or that keeps it from entering."""
        self._later.append(work)
        self._rouse()

    def _may_enter(self) -> bool:
        """Return whether this thread may wait for the section: it is in no section, here or in another client."""
        others = [reference() for reference in list(_sections.values())]
        return not any(each is not None and each._busy and _is_ours(each._lock) for each in (self, *others))

    def do_after(self, chore: Callable[[], object]) -> None:
        """Leave a chore to be done after the section that this thread is in."""
        self._chores.append(chore)

    def _see_to_chores(self) -> None:
        """Do the chores; in the middle of a section or of a chore, leave them to another thread."""
        if self._may_enter() and not self._is_choring():
            self._do_chores()
        else:
            self._rouse()

    def _do_chores(self) -> None:
        me = threading.get_ident()
        # A lock, not a set with this thread in it: a handler may raise before the last line, and the `with` statement
        # still releases the lock.
        mark = self._choring[me] = threading.RLock()
        with mark:
            while self._chores:
                try:
                    chore = self._chores.popleft()
                except IndexError:  # another thread has taken the last one
                    break
                chore()
        self._choring.pop(me, None)

    def _is_choring(self) -> bool:
        """Return whether this thread is in the middle of a chore."""
        mark = self._choring.get(threading.get_ident())
        return mark is not None and _is_ours(mark)

    def guarded(self, work: Callable[[], R]) -> R:
        """Do work in a section that has nothing to do with the core.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        return self._inside(lambda _now_ns: work())

    def locked(self) -> Any:
        """Return the lock that guards everything here, as a context manager, for single steps.

        Do not call functions or create objects while it is held: a handler or a finalizer that runs there would wait
        with the lock held.

        Raises:
            ReentrantCall: this thread is in another client's section, which it could make wait forever.
        """
        if self._busy and not _is_ours(self._lock) and not self._may_enter():
            raise ReentrantCall(
                "a finalizer in the middle of one client's work cannot wait for another client"
            )
        return self._lock


def _is_ours(lock: Any) -> bool:
    """Return whether this thread holds a reentrant lock, by the method that `threading.Condition` uses, too."""
    return bool(lock._is_owned())


_sections: dict[int, weakref.ref[Section]] = {}
"""All live sections, except those of forgotten clients that are being closed."""
