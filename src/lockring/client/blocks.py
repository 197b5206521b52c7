"""Which grant belongs to the `with` block that is being left.

One `Lock` object may be entered many times at once, and `__exit__` is given no handle of the entry that it ends. Threads
and tasks do not tell: a block may be left by another one than entered it (streamed responses, frameworks that enter and
exit in a thread pool, generators that the collector ends), and one pool thread runs parts of many blocks in turn. What
stays the same for as long as a `with` statement runs, whatever resumes it, is the frame that runs it.

Rules:

- A `with` statement gets its own grant back: entry and exit are called from the same frame, innermost first.
- Where the exit is called by hand or by an exit stack, no frame tells. Then it is the newest such entry of the same caller (a
  thread, or task, in the same context); if there is none, one whose grant has ended already, so that no lock is
  released whose block may still run; and else the newest. Which of these is right cannot be known: a grant, which is a
  context manager of its own (`stack.enter_context(lock.acquire())`), is exact there too.
- Each entry is taken exactly once, whatever thread or finalizer comes in between: one `dict.pop` decides.
- Frames, callers and threads are compared as objects that are kept alive; identifiers are used again for other ones.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from itertools import chain
from types import FrameType
from typing import Any, Final, Generic, TypeVar

import msgspec

from lockring.client.grant_state import GrantState
from lockring.errors import InvalidRequest, NotHeld

G = TypeVar("G", bound=GrantState)

_EXIT_STACKS: Final = vars(contextlib)
"""The globals of what enters for others: its frames are not those that run the block."""


class _Caller(msgspec.Struct, eq=False, frozen=True):
    """A thread, or a task, in one context. It refers weakly to tasks: a context that kept its own task would be a cycle."""

    thread: object
    task: weakref.ref[Any] | None


_caller: ContextVar[_Caller | None] = ContextVar("lockring_caller", default=None)
_thread = threading.local()


def _this_caller(task: object | None) -> _Caller:
    """The present caller: in a copy of its context, another thread or another task it is another one."""
    try:
        thread = _thread.token
    except AttributeError:
        thread = _thread.token = object()
    caller = _caller.get()
    if caller is not None and caller.thread is thread:
        known = caller.task
        if task is None if known is None else known() is task:
            return caller
    caller = _Caller(thread, None if task is None else weakref.ref(task))
    _caller.set(caller)
    return caller


class _Block(msgspec.Struct, eq=False):
    """One entry that has not been left.

    Attributes:
        grant: what it got.
        frame: which runs its `with` statement, as far as can be told; None for an exit stack's.
        caller: which entered it.
        outer: the entry before it from the same frame.
    """

    grant: Any
    frame: FrameType | None
    caller: _Caller
    outer: _Block | None = None


class Blocks(Generic[G]):
    """The blocks of one lock object that are being run. Any thread or task may call it at any time."""

    __slots__ = ("_innermost", "_open")

    def __init__(self) -> None:
        self._open: dict[_Block, None] = {}
        # Only an index: an entry that has been taken may still be found here.
        self._innermost: dict[FrameType, _Block] = {}

    def __len__(self) -> int:
        return len(self._open)

    def grants(self) -> list[G]:
        """The grants of all blocks, the newest first."""
        return [block.grant for block in reversed(list(self._open))]

    def enter(self, grant: G, frame: FrameType | None, task: object | None = None) -> None:
        """A block is entered.

        Args:
            grant: what it got.
            frame: the caller's; None where it says nothing of who leaves the block.
            task: the task that runs, with asyncio.
        """
        caller = _this_caller(task)
        if frame is None or frame.f_globals is _EXIT_STACKS:
            self._open[_Block(grant, None, caller)] = None
            return
        block = _Block(grant, frame, caller, self._innermost.get(frame))
        self._open[block] = None
        self._innermost[frame] = block

    def leave(self, name: str, frame: FrameType | None, task: object | None = None) -> G:
        """A block is left: return its grant.

        Args:
            name: of the lock, for the error.
            frame: as for `enter`.
            task: the task that runs, with asyncio.

        Raises:
            NotHeld: no block is being run.
        """
        grant: G
        block = None if frame is None else self._innermost.get(frame)
        while block is not None:
            if self._take(block):
                grant = block.grant
                return grant
            block = block.outer
        while (block := self._guess(frame, task)) is not None:
            if self._take(block):
                grant = block.grant
                return grant
        raise NotHeld(
            f"no block of the lock {name!r} is being run: it was never entered, or left before", name=name
        )

    def hold_around(self, frame: FrameType) -> bool:
        """Whether a `with` statement that holds the lock is certain not to end before the call from this frame does."""
        return bool(self._open) and any(
            block.grant.held for each in _stack(frame) for block in self._entered_from(each)
        )

    def _take(self, block: _Block) -> bool:
        """Take an entry out, unless that was done before."""
        if self._open.pop(block, self) is self:
            return False
        frame = block.frame
        if frame is not None and self._innermost.get(frame) is block:
            outer = block.outer
            while outer is not None and outer not in self._open:
                outer = outer.outer
            if outer is None:
                self._innermost.pop(frame, None)
            else:
                self._innermost[frame] = outer
        return True

    def _guess(self, frame: FrameType | None, task: object | None) -> _Block | None:
        """The entry that an exit by hand, or by an exit stack, is taken to end."""
        has_frame = frame is not None and frame.f_globals is not _EXIT_STACKS
        running = {each for each in _stack(frame) if each in self._innermost}
        everything = list(self._open)[::-1]
        blocks = [
            block
            for block in everything
            if (block.frame is not None) == has_frame and block.frame not in running
        ] or everything
        caller = _this_caller(task)
        own = (block for block in blocks if block.caller is caller)
        ended = (block for block in blocks if not block.grant.held)
        return next(chain(own, ended, blocks), None)

    def _entered_from(self, frame: FrameType) -> Iterator[_Block]:
        block = self._innermost.get(frame)
        while block is not None:
            if block in self._open:
                yield block
            block = block.outer


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those that wait for it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def waits_for_itself(name: str, *, shared: bool) -> InvalidRequest:
    """What to raise for an acquire within a block that holds the other side of the same `RWLock`."""
    has, wants = ("write", "read") if shared else ("read", "write")
    return InvalidRequest(
        f"the caller holds {name!r} to {has} and would wait for itself to {wants}: release it first",
        name=name,
    )
