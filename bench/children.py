"""Clients run in processes of their own, as users' programs do: fresh ones for each measurement.

A job is a function at the top of a module, so that the new process finds it. What it returns, or raises, comes back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from bench.processes import pin

P = ParamSpec("P")
R = TypeVar("R")

_SPAWN: Final = multiprocessing.get_context("spawn")
_ANSWER_S_MAX: Final = 180.0


class ChildFailed(RuntimeError):
    """A client's process raised, ended, or did not answer in time; with its traceback if there is one."""


class Inbox:
    """In the child: how it hears from who started it, and says how far it is."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, what: Any) -> None:
        """Send a value that `Child.hear` returns."""
        self._connection.send(("said", what))

    def hear(self) -> Any:
        """Wait for a value that `Child.tell` sends."""
        return self._connection.recv()

    def has_word(self) -> bool:
        """Whether `hear` would return at once."""
        return self._connection.poll()


class Child(Generic[R]):
    """A process that runs one job. As a context manager it is killed at the end of the block.

    Args:
        job: what to run. Its first argument is the child's inbox.
        args: the other arguments.
    """

    def __init__(self, job: Callable[Concatenate[Inbox, P], R], *args: P.args, **kwargs: P.kwargs) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_run, args=(theirs, job, args, kwargs), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def tell(self, what: Any) -> None:
        """Send a value that the child hears."""
        self._connection.send(what)

    def hear(self, timeout_s: float = _ANSWER_S_MAX) -> Any:
        """Wait for the next value that the child says.

        Raises:
            ChildFailed: it fails first.
        """
        kind, what = self._receive(timeout_s)
        if kind != "said":
            raise ChildFailed(f"a client ended early, with {what!r}")
        return what

    def result(self, timeout_s: float = _ANSWER_S_MAX) -> R:
        """Wait for what the job returns.

        Raises:
            ChildFailed: it fails.
        """
        kind, what = self._receive(timeout_s)
        if kind != "returned":
            raise ChildFailed(f"a client said {what!r} where its result was awaited")
        result: R = what
        return result

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.join()

    def _receive(self, timeout_s: float) -> tuple[str, Any]:
        if not self._connection.poll(timeout_s):
            raise ChildFailed(f"a client did not answer within {timeout_s:g} s")
        try:
            kind, what = self._connection.recv()
        except EOFError:
            raise ChildFailed("a client's process ended") from None
        if kind == "raised":
            raise ChildFailed(what)
        return kind, what

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._connection.close()


def run_in_child(job: Callable[Concatenate[Inbox, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a job in a process of its own, and return what it returns.

    Raises:
        ChildFailed: it fails.
    """
    with Child(job, *args, **kwargs) as child:
        return child.result()


def settle(cores: tuple[int, ...]) -> None:
    """In the child: run on these cores only; on all if there are none given."""
    if cores:
        pin([os.getpid()], cores)


def _run(
    connection: Connection, job: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        answer = ("returned", job(Inbox(connection), *args, **kwargs))
    except BaseException:  # noqa: BLE001 - whoever started this reports it
        answer = ("raised", traceback.format_exc())
    with contextlib.suppress(EOFError, OSError):
        connection.send(answer)
        # Servers that have a process for each client are still to be asked how much it has worked.
        connection.recv()
    # Nothing is worth waiting for: libraries' threads, or a million leases that a client would give back one by one.
    os._exit(0)
