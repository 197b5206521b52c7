"""The life of a server process: its start, signals, its end, and its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from lockring import exits
from lockring.errors import LockringError
from lockring.log_events import event
from lockring.server.logs import LogStyle, set_up_logging

PARENT_VARIABLE: Final = "_LOCKRING_PARENT"
"""Environment variable with the process id of the supervisor that this process must not outlive."""

_IS_LINUX: Final = sys.platform == "linux"
_PR_SET_PDEATHSIG: Final = 1
_GC_THRESHOLDS: Final = (50_000, 20, 50)

log = logging.getLogger("lockring.server")


class ServerProcess(Protocol):
    """A server, as its process sees it. All methods are called in the event loop."""

    async def start(self) -> None:
        """Start to serve. May raise a `LockringError`."""

    async def finished(self) -> int:
        """Wait until the server has ended by itself, and return the exit code. May raise a `LockringError`."""

    def leave(self) -> bool:
        """Begin a graceful end (SIGTERM, SIGINT). Returns False if there is nothing to do first: stop now."""

    def reload(self) -> bool:
        """Read the files again that may change meanwhile (SIGHUP). Returns False if there are none."""

    async def stop(self) -> None:
        """End everything now. Called exactly once, even after a failed start."""


def run_service(
    make: Callable[[], ServerProcess], *, style: LogStyle, name: str, parts: Mapping[str, str] | None = None
) -> int:
    """Run a server until it ends or is stopped. Blocks; for the main thread only.

    SIGTERM or SIGINT starts a graceful end; a second one of them, or SIGQUIT, ends the server at once. SIGHUP has the
    server read its files again; it is like SIGTERM for a server without such files, and once its terminal has gone.
    SIGUSR1 writes the stacks of all threads to standard error.

    Args:
        make: makes the server; called in the event loop. May raise a `LockringError`.
        style: see `set_up_logging`.
        name: the process's name in its log.
        parts: see `set_up_logging`.

    Returns:
        The exit code: 0 after a clean end; 64, 69, 73 or 78 if the server could not start, with one line that gives the
        reason; 70 after a bug, which is logged with its traceback.
    """
    set_up_logging(style, name, parts)
    if not __debug__:
        log.error(
            "cannot run under python -O, which removes checks that this server relies on; start it without -O",
            extra=event("cannot-start"),
        )
        return exits.CONFIG
    die_with_parent()
    faulthandler.register(signal.SIGUSR1)  # the stacks of all threads go to standard error
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        try:
            return runner.run(_run(make))
        except LockringError as error:
            log.error("%s", error, extra=event("ended-by-error"))  # one line, without a traceback
            return exits.exit_code_of_server(error)


async def _run(make: Callable[[], ServerProcess]) -> int:
    loop = asyncio.get_running_loop()
    end: asyncio.Future[int] = loop.create_future()
    loop.set_exception_handler(lambda _loop, context: _broken(context, end))
    tune_garbage_collection()
    service = make()

    def leave() -> None:
        if not end.done() and (asked or not service.leave()):
            end.set_result(exits.OK)
        asked.append(True)

    def quit_now() -> None:
        if not end.done():
            end.set_result(exits.OK)

    def hang_up() -> None:
        # The same signal says that the terminal has gone, at which the server was started.
        if (had_terminal and not _has_terminal()) or not service.reload():
            leave()

    had_terminal = _has_terminal()

    asked: list[bool] = []
    orderly = [(number, leave) for number in (signal.SIGTERM, signal.SIGINT)]
    for number, act in [*orderly, (signal.SIGHUP, hang_up), (signal.SIGQUIT, quit_now)]:
        # An ignored signal stays ignored: a script's background job does not end by the Ctrl-C that ends the script.
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, act)
    finished: asyncio.Task[int] | None = None
    try:
        await service.start()
        gc.freeze()  # what a journal has brought back stays
        gc.enable()
        finished = loop.create_task(service.finished())
        await asyncio.wait([finished, end], return_when=asyncio.FIRST_COMPLETED)
        return end.result() if end.done() else finished.result()
    finally:
        if finished is not None:
            finished.cancel()
            with contextlib.suppress(asyncio.CancelledError, LockringError):
                await finished
        await service.stop()


def _has_terminal() -> bool:
    """Return whether this process has a terminal from which it is controlled."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _broken(context: dict[str, Any], end: asyncio.Future[int]) -> None:
    """End the process after an unhandled exception, so that the copies of its slots take over.

    A core that was interrupted in the middle of a change cannot be trusted any more. An error of the system is harmless
    where a connection has met it. In a callback of ours it has interrupted something, such as a timer's next round.
    """
    error = context.get("exception")
    is_of_connection = isinstance(error, OSError) and "handle" not in context
    if is_of_connection or isinstance(error, asyncio.CancelledError):
        log.debug("%s", context.get("message"), exc_info=error)
        return
    log.critical("this is a bug in lockring: %s", context.get("message"), exc_info=error, extra=event("bug"))
    if not end.done():
        end.set_result(exits.INTERNAL)


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of event loops: uvloop's if installed."""
    try:
        import uvloop
    except ImportError:  # pragma: no cover - not on this interpreter
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def tune_garbage_collection() -> None:
    """Exclude all present objects from later garbage collections, and collect less often: pauses cost leases.

    Called before a server is made. Nothing is collected until it has started: a node that reads a long journal makes
    many objects that stay, and each collection would look at all of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.disable()


def die_with_parent() -> None:
    """End with the supervisor named by `PARENT_VARIABLE`, however that ends, so that no unsupervised server remains."""
    wanted = os.environ.pop(PARENT_VARIABLE, "")
    if not wanted:
        return
    parent = int(wanted)
    if _IS_LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call above
            os._exit(exits.OK)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(exits.OK)

    threading.Thread(target=watch, daemon=True).start()
