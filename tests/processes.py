"""For tests that start processes: how to look at them, to wait for them, and to name an address for one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lockring
import lockring.aio
from lockring.server.settings import GRPC_PORT_OFFSET
from lockring.testing.ports import ReservedPorts

T = TypeVar("T")

PATIENCE_S = 60.0
"""Bound of every wait for something that will happen soon, unless the machine is very busy; below that of a test."""

_ports = ReservedPorts()  # until this process ends, so that no test gets another one's


def address() -> str:
    """Return an address at which no process listens, nor will, but for a server that a test starts there."""
    return f"127.0.0.1:{_ports.take()[0]}"


def ports_in_a_row(count: int, *, with_calls: bool = False) -> list[int]:
    """Ports as those of `address`; with those for gRPC beside them, which a server takes by default."""
    return _ports.take(count, beside=GRPC_PORT_OFFSET if with_calls else 0)


def eventually(condition: Callable[[], T], what: Callable[[], str] = lambda: "it") -> T:
    """Wait until a condition holds, and return what it gave; `what` says what was waited for."""
    end_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"did not happen within {PATIENCE_S:g} s: {what()}"
        time.sleep(0.005)
    return found


def see_renewed(grant: lockring.Grant | lockring.aio.Grant) -> None:
    """Wait until a grant is renewed; a thread may do that, while the caller blocks. That it was lost fails at once.

    So a test sees a renewal without an end of the lease, and the TTL may be longer than a busy machine stands still.
    """
    ends_s = time.monotonic() + grant.remaining()

    def is_later() -> bool:
        grant.check()
        return time.monotonic() + grant.remaining() > ends_s + 0.1

    eventually(is_later, lambda: "a renewal")


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended; one that ends while it is looked at has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def last_seen_s(pid: int) -> float:
    """Wait for the end of a process, and return when it was surely still running (`time.monotonic`).

    For tests that it ends in time: the end itself may be seen late where the machine is busy, and proves nothing then.
    """
    seen_s = time.monotonic()

    def has_ended() -> bool:
        nonlocal seen_s
        now_s = time.monotonic()
        if is_running(pid):
            seen_s = now_s
            return False
        return True

    eventually(has_ended, lambda: f"the end of process {pid}")
    return seen_s


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and not waited for, in the order of their start."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def session_of(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == leader:
                found.append(int(path.name))
        except ProcessLookupError:
            continue  # it has ended since
    return found


def written(path: Path) -> str:
    """Wait until a file ends with a whole line, and return its text without that line's end."""

    def text() -> Any:
        found = path.read_text() if path.exists() else ""
        return found if found.endswith("\n") else ""

    return str(eventually(text, lambda: f"a line in {path.name}")).strip()


def after(first: str, command: Sequence[str]) -> list[str]:
    """Return a command line that runs a line of Python and then becomes another program.

    A `preexec_fn` would do so in a fork of this process, and gRPC, if it is in here, may end the fork by its threads.

    Args:
        first: the line; it may use `os` and `signal`.
        command: the program and its arguments.
    """
    # Python ignores these two signals itself, which another program would inherit.
    restore = "[signal.signal(each, signal.SIG_DFL) for each in (signal.SIGPIPE, signal.SIGXFSZ)]"
    lines = ("import os, signal, sys", restore, first, "os.execv(sys.argv[1], sys.argv[1:])")
    return [sys.executable, "-c", "\n".join(lines), *command]
