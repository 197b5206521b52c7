"""Reports what a command waits for, and for how long at most, once it has waited for a second.

One line on standard error, and another one when the cause changes, ever more rarely: people read it, and the logs
of cron jobs keep it, where a cluster that comes and goes must not fill them. A wait that is about to end is not
reported.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lockring.cli.lock.reporter import StderrReporter
from lockring.cli.output import duration, quoted, token
from lockring.errors import LockringError
from lockring.terminals import shown

if TYPE_CHECKING:
    from lockring import Client
    from lockring.core.client import Wait

LOOK_S: Final = 1.0
"""Time until the first line, and between two looks at what the command waits for."""
_PAUSE_S_MIN: Final = 5.0
_PAUSE_S_MAX: Final = 600.0
"""Longest time between two lines; it doubles each time."""
_NOT_WORTH_S: Final = 0.5
_OVERDUE_S: Final = 3.0
"""How long a question may outlast its limit on a busy machine."""
_HELD: Final = "held"
_UNREACHABLE: Final = "unreachable"


class WaitNotice(NamedTuple):
    """A report on a wait.

    Attributes:
        key: identifies the cause.
        text: for people.
        facts: for programs.
    """

    key: tuple[str, str]
    text: str
    facts: dict[str, Any]


@contextmanager
def telling(look: Callable[[float], WaitNotice | None], say: StderrReporter) -> Iterator[None]:
    """Look now and then, inside the context, at what the command waits for, and report it.

    Args:
        look: called by a thread of its own with the seconds since the wait began; None if there is nothing to report.
        say: writes the lines.
    """
    if say.is_quiet:
        yield
        return
    over = threading.Event()
    thread = threading.Thread(
        target=_tell, args=(look, _Teller(say), over), name="lockring-waiting", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()


def _tell(look: Callable[[float], WaitNotice | None], teller: _Teller, over: threading.Event) -> None:
    began_s = time.monotonic()
    while not over.wait(LOOK_S):
        try:
            found = look(time.monotonic() - began_s)
        except LockringError:  # the client was closed; the waiting call reports what matters
            return
        if not over.is_set():
            teller.take(found)


async def tell_on(look: Callable[[float], WaitNotice | None], say: StderrReporter) -> None:
    """Do the same on the running event loop, until this is cancelled: for a client that lives there.

    Args:
        look: see `telling`.
        say: writes the lines.
    """
    import asyncio  # commands with the blocking client do without it

    began_s, teller = time.monotonic(), _Teller(say)
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            found = look(time.monotonic() - began_s)
        except LockringError:  # as above
            return
        teller.take(found)


class _Teller:
    """Reports a wait if its cause is another one than before, ever more rarely."""

    def __init__(self, say: StderrReporter) -> None:
        self._say = say
        self._key: tuple[str, str] | None = None
        self._quiet_until_s = time.monotonic()
        self._pause_s = _PAUSE_S_MIN

    def take(self, found: WaitNotice | None) -> None:
        """Report what a look has found."""
        now_s = time.monotonic()
        if found is not None and found.key != self._key and now_s >= self._quiet_until_s:
            self._key, self._quiet_until_s = found.key, now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
            self._say.note(found.text, found.facts, always=True)


def of_client(
    client: Client, connect_timeout_s: float, names: Sequence[str] = (), wait_s: float | None = None
) -> Callable[[float], WaitNotice | None]:
    """Return a look for `telling` at what a client's calls wait for.

    Args:
        client: the client.
        connect_timeout_s: how long it looks for the first server, or waits for the answer to a question.
        names: of the locks being acquired; without names, any call counts.
        wait_s: the limit of the acquire, None if there is none.
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
        else:  # each question has a limit; a longer wait, such as a watch, has none
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
        text += f"; that takes {duration(wait.left_s)} at most"
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
    """Return a look for `telling` at a server that does not answer a question."""

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
    """Return the foreign holders of the locks as sentences; none if the cluster does not answer."""
    lines = []
    for name in names:
        try:
            lock = client.describe(name, timeout=LOOK_S)
        except LockringError:
            return []  # the acquire raises the error that matters
        for holder in lock.holders:
            if holder.owner != client.owner:
                since = duration(holder.held_s)
                lines.append(
                    f"{quoted(name)} is held by {shown(holder.owner)} for {since} "
                    f"({token(holder.fencing_token, lock.mode == 'shared')})"
                )
    return lines
