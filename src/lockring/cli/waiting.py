"""Saying what a command waits for, once it has waited for a second, and for how long at the most.

A line on standard error, once, and again when it is another thing that is waited for, ever more rarely: it is read by people, and kept in
the logs of cron jobs, where a cluster that comes and goes must not fill them. Nothing is told of a wait that is about to end anyway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lockring.cli.lock.reporter import StderrReporter
from lockring.cli.output import duration, quoted, shown, token
from lockring.errors import LockringError

if TYPE_CHECKING:
    from lockring import Client
    from lockring.core.client import Wait

LOOK_S: Final = 1.0
"""Until something is told first, and between two looks at what is waited for."""
_PAUSE_S_MIN: Final = 5.0
_PAUSE_S_MAX: Final = 600.0
"""From one thing that is told to the next; twice as long each time."""
_NOT_WORTH_S: Final = 0.5
_OVERDUE_S: Final = 3.0
"""How long a question may still be under way after its bound, on a busy machine."""
_HELD: Final = "held"
_UNREACHABLE: Final = "unreachable"


class WaitNotice(NamedTuple):
    """What is to be told.

    Attributes:
        key: the same for as long as it is the same thing that is waited for.
        text: for people.
        facts: for programs.
    """

    key: tuple[str, str]
    text: str
    facts: dict[str, Any]


@contextmanager
def telling(look: Callable[[float], WaitNotice | None], say: StderrReporter) -> Iterator[None]:
    """Meanwhile, look now and then at what is waited for, and tell it.

    Args:
        look: called by a thread of its own with the seconds since the wait began; None if there is nothing to tell.
        say: where to.
    """
    if say.is_quiet:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(look, say, over), name="lockring-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def _tell(look: Callable[[float], WaitNotice | None], say: StderrReporter, over: threading.Event) -> None:
    began_s = time.monotonic()
    key, quiet_until_s, pause_s = None, began_s, _PAUSE_S_MIN
    while not over.wait(LOOK_S):
        try:
            found = look(time.monotonic() - began_s)
        except LockringError:  # the client was closed; what matters is told by who waits
            return
        now_s = time.monotonic()
        if found is not None and found.key != key and now_s >= quiet_until_s and not over.is_set():
            key, quiet_until_s, pause_s = found.key, now_s + pause_s, min(2 * pause_s, _PAUSE_S_MAX)
            say.note(found.text, found.facts, always=True)


def of_client(
    client: Client, connect_timeout_s: float, names: Sequence[str] = (), wait_s: float | None = None
) -> Callable[[float], WaitNotice | None]:
    """What calls of a client wait for, for `telling`.

    Args:
        client: whose calls.
        connect_timeout_s: how long it looks for the first server that answers, or for the answer to a question.
        names: of locks that are acquired; without them, any call is looked at.
        wait_s: the bound of that, None if there is none.
    """
    was_reached = False

    def look(waited_s: float) -> WaitNotice | None:
        nonlocal was_reached
        wait = next((each for each in client.waits() if not names or each.name in names), None)
        if wait is None:
            return None
        was_reached = was_reached or wait.reason != _UNREACHABLE
        if names:
            bound_s = connect_timeout_s if wait_s is None and not was_reached else wait_s
        else:  # each question has its bound; what goes on for longer, such as a watch, has none
            bound_s = connect_timeout_s if waited_s < connect_timeout_s + _OVERDUE_S else None
        left_s = None if bound_s is None else bound_s - waited_s
        if left_s is not None and left_s < _NOT_WORTH_S:
            return None
        text = "; ".join(holders(client, names)) if names and wait.reason == _HELD else ""
        return _told(wait, text or wait.text, left_s, "-w sets one" if names else "")

    return look


def _told(wait: Wait, what: str, left_s: float | None, limit: str) -> WaitNotice:
    text = f"waiting: {shown(what)}"
    if wait.left_s is not None:
        text += f"; that takes {duration(wait.left_s)} at the most"
    if left_s is not None:
        text += f"; giving up in {duration(left_s)}"
    elif wait.left_s is None:
        text += "; there is no limit to the wait" + (f" ({limit})" if limit else "")
    facts = {
        "event": "waiting",
        "name": wait.name or None,
        "reason": wait.reason,
        "message": what,
        "since_s": round(wait.since_s, 3),
        "left_s": None if wait.left_s is None else round(wait.left_s, 3),
        "gives_up_s": None if left_s is None else round(left_s, 3),
    }
    return WaitNotice((wait.reason, wait.name), text, facts)


def of_answer(server: str, timeout_s: float) -> Callable[[float], WaitNotice | None]:
    """That a server does not answer a question, for `telling`."""

    def look(waited_s: float) -> WaitNotice | None:
        left_s = timeout_s - waited_s
        if left_s < _NOT_WORTH_S:
            return None
        what = f"{server} has not answered yet"
        facts = {"event": "waiting", "name": None, "reason": "silent", "message": what}
        return WaitNotice(
            ("silent", server),
            f"waiting: {what}; giving up in {duration(left_s)}",
            {**facts, "gives_up_s": left_s},
        )

    return look


def holders(client: Client, names: Sequence[str]) -> list[str]:
    """Who has those of the locks that others have, as sentences; none if the cluster does not say."""
    lines = []
    for name in names:
        try:
            lock = client.describe(name, timeout=LOOK_S)
        except LockringError:
            return []  # the error that matters comes from acquiring
        for holder in lock.holders:
            if holder.owner != client.owner:
                since = duration(holder.held_s)
                lines.append(
                    f"{quoted(name)} is held by {shown(holder.owner)} for {since} "
                    f"({token(holder.fencing_token, lock.mode == 'shared')})"
                )
    return lines
