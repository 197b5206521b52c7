"""Jobs for clients' processes, without a library: any Python can run them."""

from __future__ import annotations

import os
import sys

from bench.children import Inbox


def where(inbox: Inbox) -> str:
    """Return the environment of this process."""
    return sys.prefix


def echo(inbox: Inbox, times: int) -> int:
    """Say back what is heard, and return this process's id."""
    for _ in range(times):
        inbox.say(inbox.hear())
    return os.getpid()


def fail(inbox: Inbox) -> None:
    """Raise an error."""
    raise LookupError("nothing here")


def vanish(inbox: Inbox) -> None:
    """End this process without notice."""
    os._exit(3)
