"""The open `with` blocks of a lock: they decide which grant an exit releases.

One `Lock` object may be entered many times at once, and `__exit__` receives no handle of the entry that it ends.
Threads and tasks do not identify the entry. A block may be left by another thread than entered it: streamed responses,
frameworks that enter and exit in a thread pool, generators that the collector ends. And one pool thread runs parts of
many blocks in turn. The frame, however, stays the same for as long as a `with` statement runs.

Rules:

- A `with` statement gets its own grant back: entry and exit are called from the same frame, innermost first.
- If the exit is called by hand or by an exit stack, the frame says nothing. The exit then ends the newest such entry
  of the same caller (a thread, or a task, in the same context). If there is none, it ends an entry whose grant has
  ended already, so that no lock is released whose block may still run; and otherwise the newest. Which of these is
  right cannot be known. A grant is a context manager of its own and is exact even there:
  `stack.enter_context(lock.acquire())`.
- Each entry is taken exactly once, whatever thread or finalizer comes in between: one `dict.pop` decides.
- Frames, callers and threads are compared as objects that are kept alive, since Python reuses their identifiers.
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
"""The globals of exit stacks. They enter on behalf of others: their frames do not run the block."""


class _Caller(msgspec.Struct, eq=False, frozen=True):
    """A thread, or a task, in one context.

    It refers to its task weakly: a context that kept its own task alive would be a cycle.
    """

    thread: object
    task: weakref.ref[Any] | None


_caller: ContextVar[_Caller | None] = ContextVar("lockring_caller", default=None)
_thread = threading.local()


def _this_caller(task: object | None) -> _Caller:
    """Return the present caller. A copy of its context in another thread or task is another caller."""
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
        grant: the grant that it got.
        frame: the frame that runs its `with` statement, as far as is known; None for an exit stack.
        caller: the caller that entered it.
        outer: the entry before it from the same frame.
    """

    grant: Any
    frame: FrameType | None
    caller: _Caller
    outer: _Block | None = None


class Blocks(Generic[G]):
    """The open blocks of one lock object. Any thread or task may call it at any time."""

    __slots__ = ("_innermost", "_open")

    def __init__(self) -> None:
        self._open: dict[_Block, None] = {}
        # Only an index: it may still refer to an entry that was taken.
        self._innermost: dict[FrameType, _Block] = {}

    def __len__(self) -> int:
        return len(self._open)

    def grants(self) -> list[G]:
        """Return the grants of all open blocks, the newest first."""
        return [block.grant for block in reversed(list(self._open))]

    def enter(self, grant: G, frame: FrameType | None, task: object | None = None) -> None:
        """Open a block.

        Args:
            grant: the grant that it got.
            frame: the caller's frame; None if the block may be left from any other frame.
            task: the running task, with asyncio.
        """
        caller = _this_caller(task)
        if frame is None or frame.f_globals is _EXIT_STACKS:
            self._open[_Block(grant, None, caller)] = None
            return
        block = _Block(grant, frame, caller, self._innermost.get(frame))
        self._open[block] = None
        self._innermost[frame] = block

    def leave(self, name: str, frame: FrameType | None, task: object | None = None) -> G:
        """Close a block and return its grant.

        Args:
            name: the lock's name, for the error.
            frame: as for `enter`.
            task: the running task, with asyncio.

        Raises:
            NotHeld: no block is open.
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
        """Return whether a `with` statement that holds the lock is certain to outlast the call from this frame."""
        return bool(self._open) and any(
            block.grant.held for each in _stack(frame) for block in self._entered_from(each)
        )

    def _take(self, block: _Block) -> bool:
        """Take an entry out. Returns whether it was still there."""
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
        """Return the entry that an exit by hand, or by an exit stack, most likely ends."""
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
    """Yield a frame and the frames that wait for it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def waits_for_itself(name: str, *, shared: bool) -> InvalidRequest:
    """Return the error for an acquire inside a block that holds the other side of the same `RWLock`."""
    has, wants = ("write", "read") if shared else ("read", "write")
    return InvalidRequest(
        f"the caller holds {name!r} to {has} and would wait for itself to {wants}: release it first",
        name=name,
    )
