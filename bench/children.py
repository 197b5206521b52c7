"""Clients run in processes of their own, like users' programs: fresh ones for each measurement.

A job is a function at the top of a module, so that the new process finds it. Its result, or its error, comes back. The
process runs any interpreter that has what the job imports: so two builds of one library can be measured in one run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from bench.processes import pin

P = ParamSpec("P")
R = TypeVar("R")

_ROOT: Final = Path(__file__).resolve().parents[1]
_EXIT_S_MAX: Final = 10.0
_ANSWER_S_MAX: Final = 180.0


class ChildFailed(RuntimeError):
    """A client's process raised, ended, or did not answer in time; with its traceback if there is one."""


class Inbox:
    """The child's side of the conversation with its parent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, what: Any) -> None:
        """Send a value that `Child.hear` returns."""
        self._connection.send(("said", what))

    def hear(self) -> Any:
        """Wait for a value that `Child.tell` sends."""
        return self._connection.recv()

    def has_word(self) -> bool:
        """Return whether `hear` would return at once."""
        return self._connection.poll()


class Child(Generic[R]):
    """A process that runs one job. As a context manager it is killed at the end of the block.

    Args:
        job: the function to run. Its first argument is the child's inbox.
        args: its other arguments.
    """

    def __init__(self, job: Callable[Concatenate[Inbox, P], R], *args: P.args, **kwargs: P.kwargs) -> None:
        self._start(sys.executable, job, args, kwargs)

    @classmethod
    def under(
        cls, python: str, job: Callable[Concatenate[Inbox, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> Child[R]:
        """Return a process that runs a job under another interpreter of the same version, with its own libraries."""
        child: Child[R] = cls.__new__(cls)
        child._start(python, job, args, kwargs)
        return child

    def _start(
        self, python: str, job: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        with theirs:
            self._popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", python, "-m", "bench.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
            )
        with contextlib.suppress(BrokenPipeError):  # the first answer that is awaited says so
            self._connection.send((job, args, kwargs))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._popen.pid

    def tell(self, what: Any) -> None:
        """Send a value that `Inbox.hear` returns."""
        self._connection.send(what)

    def hear(self, timeout_s: float = _ANSWER_S_MAX) -> Any:
        """Wait for the next value of `Inbox.say`.

        Raises:
            ChildFailed: the child fails first.
        """
        kind, what = self._receive(timeout_s)
        if kind != "said":
            raise ChildFailed(f"a client ended early, with {what!r}")
        return what

    def result(self, timeout_s: float = _ANSWER_S_MAX) -> R:
        """Wait for the job's result.

        Raises:
            ChildFailed: the child fails.
        """
        kind, what = self._receive(timeout_s)
        if kind != "returned":
            raise ChildFailed(f"a client said {what!r} where its result was awaited")
        result: R = what
        return result

    def kill(self) -> None:
        """End the process at once, as a crash would, and wait until it is gone."""
        self._popen.kill()
        self._popen.wait(_EXIT_S_MAX)

    def close(self) -> None:
        """Kill it, and close the connection. Closing a closed child is harmless."""
        self.kill()
        self._connection.close()

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
        self.close()


def settle(cores: tuple[int, ...]) -> None:
    """Pin this process, a child, to these cores; () leaves it on all."""
    if cores:
        pin([os.getpid()], cores)


def serve(descriptor: int) -> None:
    """Run the job that comes over a connection, in this process, and end it.

    Args:
        descriptor: of the open connection to the parent.
    """
    connection = Connection(descriptor)
    try:
        job, args, kwargs = connection.recv()
        answer = ("returned", job(Inbox(connection), *args, **kwargs))
    except BaseException:  # noqa: BLE001 - the parent reports it
        answer = ("raised", traceback.format_exc())
    with contextlib.suppress(EOFError, OSError):
        connection.send(answer)
        # A server may have a process for each client, and its processor time is still to read.
        connection.recv()
    # Skip the exit handlers: libraries' threads, or a million leases that a client would release one by one.
    os._exit(0)
