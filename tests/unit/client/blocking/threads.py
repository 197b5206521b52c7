"""Threads beside a test, and signals for it while it waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import lockring
from tests.processes import eventually
from tests.unit.client.lock_server import LockServer


def in_thread(function: object) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def signal_once(
    client: lockring.Client,
    server: LockServer,
    condition: Callable[[], bool],
    number: signal.Signals = signal.SIGINT,
) -> threading.Thread:
    """Signal the main thread once a condition on the server holds and the thread waits for its answer.

    That its call is queued must have been read by then: else the thread may be about to wake up for that.
    """
    main = threading.main_thread().ident
    assert main is not None

    def work() -> None:
        server.wait_until(condition)
        eventually(lambda: all(each.reason == "held" for each in client.waits()))
        signal.pthread_kill(main, number)

    return in_thread(work)
