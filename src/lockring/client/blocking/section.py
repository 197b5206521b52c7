"""One section at a time, whatever comes in the middle of it.

Everything that the blocking client has is changed in sections, under one lock. Three things may come between any two steps of
a section, in its own thread: a signal's handler or a finalizer that calls the client again, an exception that one of them
raises (as Ctrl-C does), and an error of the section itself. None of them may leave a thread waiting:

- The lock lets its own thread in again, so that no thread waits for itself. What comes in so finds things half done. It may
  leave what needs no answer to the end of the section (`_defer`); anything else is refused at once (`ReentrantCall`).
- A thread that is in one client's section does not wait for another client's: two threads could wait for each other. It is
  treated as one that comes in again.
- A section that ends with an exception has left things half done. The next one mends that first, and is told what it was.
- No thread waits for another one in a section: a finalizer over there may call the client, and wait for the section. What
  starts threads, sets events or writes logs waits for others, so it is done after the section, as a chore.

The clock is read inside, after the network: so no answer is judged by an older time than another thread has already seen.
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
    """What sections need; for a class that does its work in them to inherit from.

    Attributes:
        _lock: held in each section; also guards what is only read or added to (see `locked`).
        _busy: whether some thread is in a section.
        _torn: what ended a section in its middle, until that is mended.
        _later: what was left to the end of a section.
        _chores: what is to be done outside of sections, by the next thread that leaves one.
        _choring: by thread, a lock that it holds while it does some: what it waits for may be what it was about to do.
    """

    def __init__(self) -> None:
        self._open_sections()

    def _open_sections(self) -> None:
        """Begin with an open lock: at first, and in the child of a fork."""
        self._lock = threading.RLock()
        self._busy = False
        self._torn: BaseException | None = None
        self._later: deque[Callable[[int], object]] = deque()
        self._chores: deque[Callable[[], object]] = deque()
        self._choring: dict[int, Any] = {}
        key = id(self)
        _sections[key] = weakref.ref(self, lambda _: _sections.pop(key, None))

    def _mend(self, now_ns: int, cause: BaseException) -> None:
        """Put in order what a section left half done that ended with `cause`."""
        raise NotImplementedError

    def _rouse(self) -> None:
        """Have some thread enter a section soon."""
        raise NotImplementedError

    def _inside(self, work: Callable[[int, *Ts], R], *arguments: *Ts) -> R:
        """Do something in a section; it is given the time first. What it raises tears the section.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        if self._busy and not self._may_enter():
            raise self._reentrant()
        with self._lock:
            # No handler and no finalizer comes between these steps: the interpreter looks for them after calls.
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
        """Leave something to the end of the section that this thread is in, or that keeps it from entering."""
        self._later.append(work)
        self._rouse()

    def _may_enter(self) -> bool:
        """Whether this thread may wait for the section: it is in none, neither here nor in another client."""
        others = [reference() for reference in list(_sections.values())]
        return not any(each is not None and each._busy and _is_ours(each._lock) for each in (self, *others))

    def do_after(self, chore: Callable[[], object]) -> None:
        """Have something done after the section that this thread is in."""
        self._chores.append(chore)

    def _see_to_chores(self) -> None:
        """Do the chores, or have them done by another thread if this one is in the middle of a section or of a chore."""
        if self._may_enter() and not self._is_choring():
            self._do_chores()
        else:
            self._rouse()

    def _do_chores(self) -> None:
        me = threading.get_ident()
        # A lock, not a set with this thread in it: a handler may raise before the last line, and the interpreter then
        # gives the lock back all the same.
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
        """Do something in a section that has nothing to do with the core.

        Raises:
            ReentrantCall: this thread is in a section already, and nothing was done.
        """
        return self._inside(lambda _now_ns: work())

    def locked(self) -> Any:
        """The lock that guards everything here, as a context manager, for single steps.

        Nothing may be called or made in it: a handler or a finalizer that comes there would wait with the lock held.

        Raises:
            ReentrantCall: this thread is in another client's section, which it could make wait for ever.
        """
        if self._busy and not _is_ours(self._lock) and not self._may_enter():
            raise ReentrantCall(
                "a finalizer in the middle of one client's work cannot wait for another client"
            )
        return self._lock


def _is_ours(lock: Any) -> bool:
    """Whether this thread holds a lock that lets its own thread in again; what `threading.Condition` asks it, too."""
    return bool(lock._is_owned())


_sections: dict[int, weakref.ref[Section]] = {}
"""All that live, but for those that were forgotten and are being closed."""
