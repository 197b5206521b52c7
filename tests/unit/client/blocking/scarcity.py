"""A program that uses a blocking client while the system gives it no threads, or no descriptors.

    python -m tests.unit.client.blocking.scarcity ADDRESS first|reconnect|callback threads|descriptors

It prints a line for each step, and waits for a line before it goes on from one to the next.
"""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lockring

STACK_BYTES = 1 << 29


@contextmanager
def no_threads() -> Iterator[None]:
    """No room for the stack of another thread."""
    with open("/proc/self/statm") as file:
        used_bytes = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    threading.stack_size(STACK_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + STACK_BYTES // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        threading.stack_size(0)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let no file be opened, not even in place of a closed one. Open files stay open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def say(text: str) -> None:
    """Tell how far it is, and wait until it may go on."""
    print(text, flush=True)
    sys.stdin.readline()


def failure(call: Callable[[], object]) -> str:
    """Return the text of the error that a call raises; it must be an error of the client's tree."""
    try:
        call()
    except lockring.LockringError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(address: str, what: str, of: str) -> None:
    """Run one of the three."""
    scarce = {"threads": no_threads, "descriptors": no_descriptors}[of]
    with lockring.Client(address, ttl=20) as client:
        if what == "first":
            with scarce():
                print(failure(lambda: client.lock("x").acquire(timeout=1)), flush=True)
        else:
            grant = client.lock("held").acquire()
            told = threading.Event()
            if what == "callback":
                grant.on_lost(lambda _: told.set())
            with scarce():
                say("ready")
                if what == "callback":
                    print(grant.lost.wait(20), told.is_set(), flush=True)
                else:
                    print(failure(lambda: client.lock("y").acquire(timeout=2)), flush=True)
            if what == "callback":
                print(told.wait(20), flush=True)
            else:
                print(grant.held, flush=True)
                say("again")
        with client.lock("x").acquire(timeout=20) as again:
            print(again.held, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
