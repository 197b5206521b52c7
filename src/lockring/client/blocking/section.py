"""One section at a time, whatever interrupts it.

The state of the blocking client is changed in sections, under one lock. Three things may come between any two steps
of a section, in its own thread: a signal's handler or a finalizer that calls the client again, an exception that one
of them raises (as Ctrl-C does), and an error of the section itself. None of them may leave a thread waiting:

- The lock lets its own thread in again, so that no thread waits for itself. Such a reentrant call finds things half
  done. It may leave work that needs no answer to the end of the section (`defer`); any other call is refused at once
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

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, TypeVarTuple

from lockring.build_kind import BUILD, COMPILED
from lockring.client.blocking.handlers import let_handlers_run
from lockring.clock import monotonic_ns
from lockring.errors import ReentrantCall

_IS_COMPILED: Final = BUILD == COMPILED

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Section:
    """The critical section of one client, with the work that is left for its end and for after it.

    Args:
        rouse: has some thread enter a section soon.

    Attributes:
        mend: given the time and the exception that ended a section in its middle, mends what that left half done. To
            be set before the first section.
        torn: the exception that ended a section in its middle, until that is mended.
        chores: work for outside sections, done by the next thread that leaves one.
        choring: by thread, a lock that the thread holds while it does chores. A call that interrupts it there must not
            wait, since it may wait for the rest of those chores.
    """

    __slots__ = (
        "_busy",
        "_later",
        "_lock",
        "_rouse",
        "chores",
        "choring",
        "mend",
        "torn",
    )

    def __init__(self, rouse: Callable[[], None]) -> None:
        self._rouse = rouse
        self.mend: Callable[[int, BaseException], None] | None = None
        self._lock = threading.RLock()
        self._busy = [False]
        self.torn: BaseException | None = None
        self._later: deque[Callable[[int], object]] = deque()
        self.chores: deque[Callable[[], object]] = deque()
        self.choring: dict[int, Any] = {}
        key = id(self._lock)
        _sections[key] = weakref.ref(self._lock, lambda _: _sections.pop(key, None)), self._busy

    # ------------------------------------------------------------------ sections

    def inside(self, work: Callable[[int, *Ts], R], *arguments: *Ts) -> R:
        """Do `work` in a section. Its first argument is the time; an exception that it raises tears the section.

        This is a function, and not a context manager of its own around its callers' lines: a handler could raise at
        the first step of an `__exit__` in Python, before that releases the lock. The lock's own `__exit__` is one step.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        if _IS_COMPILED:
            let_handlers_run()
        if self._busy[0] and not self.may_enter():
            raise reentrant_call()
        with self._lock:
            # No handler or finalizer runs between these two steps: the interpreter checks for them after calls.
            self._busy[0] = True
            try:
                now_ns = monotonic_ns()
                if self.torn is not None:
                    assert self.mend is not None
                    self.mend(now_ns, self.torn)
                    self.torn = None
                result = work(now_ns, *arguments)
                while self._later:
                    self._later.popleft()(now_ns)
                self._busy[0] = False
            except BaseException as error:
                # Every exception tears it, even one of the client's own kind: a handler may have raised it.
                self._busy[0] = False
                self.torn = error
                raise
        if self.chores:
            self.see_to_chores()
        return result

    def guarded(self, work: Callable[[], R]) -> R:
        """Do work in a section that has nothing to do with the core.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        return self.inside(lambda _now_ns: work())

    def locked(self) -> Any:
        """Return the lock that guards everything here, as a context manager, for single steps.

        Do not call functions or create objects while it is held: a handler or a finalizer that runs there would wait
        with the lock held.

        Raises:
            ReentrantCall: this thread is in another client's section, which it could make wait forever.
        """
        if self._busy[0] and not self.is_ours() and not self.may_enter():
            raise ReentrantCall(
                "a finalizer in the middle of one client's work cannot wait for another client"
            )
        return self._lock

    def defer(self, work: Callable[[int], object]) -> None:
        """Leave work to the end of the section that this thread is in, or that keeps it from entering."""
        self._later.append(work)
        self._rouse()

    def tear(self, cause: BaseException) -> None:
        """Mark the whole state as unreliable: the next section mends it."""
        self.torn = cause
        self._rouse()

    def is_ours(self) -> bool:
        """Return whether this thread holds the lock."""
        return _holds(self._lock)

    def may_enter(self) -> bool:
        """Return whether this thread may wait for the section: it is in no section, here or in another client."""
        if self._busy[0] and self.is_ours():
            return False
        for reference, busy in list(_sections.values()):
            lock = reference()
            if lock is not None and busy[0] and _holds(lock):
                return False
        return True

    # ------------------------------------------------------------------ chores

    def do_after(self, chore: Callable[[], object]) -> None:
        """Leave a chore to be done after the section that this thread is in."""
        self.chores.append(chore)

    def see_to_chores(self) -> None:
        """Do the chores; in the middle of a section or of a chore, leave them to another thread."""
        if self.may_enter() and not self.is_choring():
            self._do_chores()
        else:
            self._rouse()

    def _do_chores(self) -> None:
        me = threading.get_ident()
        # A lock, not a set with this thread in it: a handler may raise before the last line, and the `with` statement
        # still releases the lock.
        mark = self.choring[me] = threading.RLock()
        with mark:
            while self.chores:
                try:
                    chore = self.chores.popleft()
                except IndexError:  # another thread has taken the last one
                    break
                chore()
        self.choring.pop(me, None)

    def is_choring(self) -> bool:
        """Return whether this thread is in the middle of a chore."""
        mark = self.choring.get(threading.get_ident())
        return mark is not None and _holds(mark)


def reentrant_call() -> ReentrantCall:
    """Return the error for a call that came in the middle of a section, in that section's thread."""
    return ReentrantCall(
        "a signal handler or a finalizer called the client while its thread was in the middle of the client's own"
        " work, so nothing was done: try again later, or from another thread"
    )


def _holds(lock: Any) -> bool:
    """Return whether this thread holds a reentrant lock, by the method that `threading.Condition` uses, too."""
    return bool(lock._is_owned())


_sections: dict[int, tuple[weakref.ref[Any], list[bool]]] = {}
"""Of each live section its lock, and whether it is busy. Weakly, and not the section itself: the compiled build has no
weak references to those. In the child of a fork, the parent's do not count: each client begins with a new one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_sections.clear)
