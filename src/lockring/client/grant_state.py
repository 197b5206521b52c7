"""The part of a grant that needs no I/O, and the holders of a lock: the same in both clients."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar

from lockring.client.client_log import client_log
from lockring.client.process_bound import ProcessBound
from lockring.client.tracing import HoldSpan
from lockring.clock import monotonic_ns, wall_ns
from lockring.core.client import (
    ENDED,
    HELD,
    ClientCore,
    HolderReference,
    Ticket,
    deadline_ns_of,
    not_held,
    reason_of_expiry,
)
from lockring.core.refusals import holder_of
from lockring.errors import InvalidRequest, LockLost, LockringError
from lockring.holders import Holder as Holder
from lockring.ids import RequestNumber
from lockring.log_events import event
from lockring.net.frames import encode_frame
from lockring.protocol import CloseSession, LockRecord, Mode
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S

_LAST_REQUEST: Final = RequestNumber(1 << 53)
"""Greater than every request number: no answer to the last message is expected."""
_FRAMES_OF_DROP: Final = 100
"""Free stack frames that giving up a grant may need."""

ListenerT = TypeVar("ListenerT")

LossCallback = Callable[[LockLost], object]
"""A function that receives the error that `check` would raise, with the lock's `name` and the `reason`."""


def check_callback(callback: Callable[..., object], taker: str = "on_lost") -> None:
    """Check that a callback is a plain function. `taker` is the method that takes it, for the error.

    Raises:
        InvalidRequest: it cannot be called, or it is a coroutine function, whose coroutine would never run.
    """
    if not callable(callback):
        raise InvalidRequest(f"{taker} takes a function, not {callback!r}")
    if is_kind(inspect.iscoroutinefunction, callback):
        raise InvalidRequest(
            f"{taker} calls a plain function; an async one would never run: let it start a task"
        )


def is_kind(kind: Callable[[Any], bool], function: Callable[..., object]) -> bool:
    """Return whether a callable is of a kind: itself, the function of a partial, or the `__call__` of an object."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (not inspect.isroutine(function) and kind(type(function).__call__))


def report_in_thread() -> None:
    """Report the error that is being handled as `threading` reports errors of threads, even if its hook fails."""
    try:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
    except BaseException:  # noqa: BLE001 - the hook itself has failed: reported as the interpreter does it
        sys.__excepthook__(*sys.exc_info())


def holding_of_each(lock: LockRecord) -> list[Holder]:
    """Return the holders of a lock in their public form, in the order of their grants."""
    return [holder_of(each) for each in lock.holders]


def is_holder(ticket: Ticket, lock: LockRecord) -> bool:
    """Return whether this acquisition, and not another one of its session, holds the lock."""
    return any(
        (holder.session, holder.acquisition, holder.generation)
        == (ticket.session.id, ticket.acquisition, ticket.generation)
        for holder in lock.holders
    )


def loss_of(ticket: Ticket) -> LockLost:
    """Return the error for a ticket that was lost."""
    error = not_held(ticket)
    assert isinstance(error, LockLost)
    return error


def listener_of(reference: Callable[[], ListenerT | None] | None) -> ListenerT | None:
    """Return the listener that a ticket or query refers to, None if it has none, or if that was dropped."""
    return reference() if reference is not None else None


def tell_lost(reference: HolderReference | None) -> None:
    """Notify the listener of a ticket, if it still exists, that the ticket was lost."""
    loser = listener_of(reference)
    if loser is not None:
        loser._on_ticket_lost()


def what_happened(cause: BaseException) -> str:
    """Return why a section was interrupted, as the text of an error."""
    if isinstance(cause, Exception):
        return f"{reason_of(cause)} in the middle of the client's work"
    return f"an interrupt came at the wrong moment ({type(cause).__name__})"


class ExpiryCheck(Protocol):
    """The client, as its grants see it."""

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""

    @property
    def owner(self) -> str:
        """The client's owner label."""

    def notice_expiry(self) -> None:
        """Find out which leases have expired."""


class GrantState(ProcessBound):
    """One acquisition of a lock, as far as the client knows it without asking a node.

    A grant is a value of its own: it belongs to the code that acquired it, not to a thread or a task.
    """

    _instead = (
        "pass its name and fencing token, for what the lock protects; the lease stays with this process"
    )

    __slots__ = ("_acquired_at_ns", "_callbacks", "_driver", "_hold", "_owner", "_ticket")

    def __init__(self, driver: ExpiryCheck, ticket: Ticket) -> None:
        self._driver: ExpiryCheck = driver
        self._ticket = ticket
        self._owner = driver.owner
        self._acquired_at_ns = wall_ns()
        self._callbacks: list[LossCallback] | None = None
        self._hold: HoldSpan | None = None

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._ticket.name

    @property
    def fencing_token(self) -> int:
        """A number greater than the token of every earlier grant of this lock. It does not change.

        Pass it to the resource that the lock protects. A resource that remembers the greatest token it has seen can
        refuse requests with a smaller one, which come from a former holder. Readers that share the lock have
        different tokens.
        """
        return self._ticket.generation

    @property
    def owner(self) -> str:
        """The label that other clients see as the holder."""
        return self._owner

    @property
    def session(self) -> str:
        """The id of the session that holds the lock, as other clients see it."""
        return self._ticket.session.id

    @property
    def shared(self) -> bool:
        """Whether the lock is held for reading, so that other readers can hold it at the same time."""
        return self._ticket.exchange.terms.mode == Mode.SHARED

    @property
    def acquired_at(self) -> datetime:
        """When the lock was acquired, in UTC, by this machine's wall clock. Use it in logs, not for decisions."""
        return datetime.fromtimestamp(self._acquired_at_ns / NS_PER_S, UTC)

    @property
    def held(self) -> bool:
        """Whether this grant holds the lock at this moment: it was neither released nor lost.

        Reads the clock, and does no I/O. False from the moment the lease may have ended, before any other client can
        acquire the lock.
        """
        ticket = self._ticket
        if ticket.state != HELD:
            return False
        if monotonic_ns() < deadline_ns_of(ticket):
            return True
        self._driver.notice_expiry()
        return ticket.state == HELD and monotonic_ns() < deadline_ns_of(ticket)

    def remaining(self) -> float:
        """Return how long the lock is certain to stay held if no further renewal succeeds, in seconds.

        0.0 if it is not held.
        """
        if not self.held:
            return 0.0
        return max(0, deadline_ns_of(self._ticket) - monotonic_ns()) / NS_PER_S

    def check(self) -> Self:
        """Return the grant if the lock is held.

        Raises:
            LockLost: the lock was lost.
            NotHeld: the lock was released.
        """
        if not self.held:
            raise self._why_not_held()
        return self

    def _why_not_held(self) -> LockringError:
        ticket = self._ticket
        if ticket.state == HELD:  # the lease has ended, and the client has not processed that yet
            reason = reason_of_expiry(ticket)
            return LockLost(
                f"the lock {ticket.name!r} was lost: {LockLost.explained(reason)}",
                name=ticket.name,
                reason=reason,
            )
        return not_held(ticket)

    @property
    def _loss(self) -> LockLost | None:
        """The error that `check` raises if the lock was lost, otherwise None."""
        error = None if self.held else self._why_not_held()
        return error if isinstance(error, LockLost) else None

    def __repr__(self) -> str:
        loss = self._loss
        if loss is not None:
            state = f"lost: {loss.reason}"
        elif self.held:
            state = f"held, {self.remaining():.1f} s left"
        else:
            state = "released"
        return f"<{type(self).__name__} {self.name!r} token {self.fencing_token}{', shared' if self.shared else ''}, {state}>"


_awaited: dict[int, object] = {}
"""Grants and memberships with callbacks or events. The program expects a call from them, so they must stay alive
although it may keep no reference to them."""


def keep_from_being_dropped(holder: object) -> None:
    """Keep a grant or membership alive, since the program waits for its end or its changes."""
    _awaited[id(holder)] = holder


def may_be_dropped(holder: object) -> None:
    """Undo `keep_from_being_dropped`: the grant or membership has nothing more to report."""
    _awaited.pop(id(holder), None)


def give_up_dropped(grant: GrantState, ticket: Ticket) -> None:
    """Give up the lock of a grant to which nothing refers any more, and warn.

    An exception that ends this, as one of a signal handler may, is printed by the interpreter and forgotten. So the
    driver also looks for such grants by itself, before it renews. Nothing could tell it to: at the recursion limit,
    not even the callback of a weak reference runs that is written in C.

    Raises:
        RecursionError: the stack is too full, and nothing was done.
    """
    _need_frames(_FRAMES_OF_DROP)
    grant._driver.drop(ticket)
    warnings.warn(words_of_drop(ticket), ResourceWarning, source=grant, stacklevel=3)


def _need_frames(count: int) -> None:
    """Raise RecursionError here, and not halfway through the client's work, where it costs all that is held."""
    if count:
        _need_frames(count - 1)


def dropped_tickets(core: ClientCore) -> list[Ticket]:
    """Return what is held for grants and memberships that are gone; O(held)."""
    return [
        ticket
        for session in core.sessions()
        for share in session.shares.values()
        for ticket in share.tickets.values()
        if ticket.state == HELD and ticket.holder is not None and ticket.holder() is None
    ]


def cancel_dropped(core: ClientCore, *, now_ns: int) -> list[Ticket]:
    """Give up what is held for grants and memberships that are gone, and return it; O(held)."""
    dropped = dropped_tickets(core)
    for ticket in dropped:
        core.cancel(ticket, now_ns=now_ns)
    return dropped


def report_drop(ticket: Ticket) -> None:
    """Log and warn that the lock of a dropped grant was given up."""
    log_drop(ticket)
    with contextlib.suppress(
        ResourceWarning
    ):  # an error by the program's filters: no caller is there to have it
        warnings.warn(words_of_drop(ticket), ResourceWarning, stacklevel=2)


def log_drop(ticket: Ticket) -> None:
    """Log that the lock of a dropped grant is given up."""
    log = client_log()
    if log is not None:
        log.warning("%s", words_of_drop(ticket), extra=event("grant-dropped", lock=ticket.name))


def words_of_drop(ticket: Ticket) -> str:
    """Return the warning about a grant that was dropped while it was held."""
    return (
        f"the grant of {ticket.name!r} was dropped while it was held, so the lock is given up:"
        " keep the grant, and release it"
    )


def blame(error: BaseException | None, loss: LockLost) -> None:
    """Report at the end of a block that its lock was lost: raise the loss, or note it on the block's own error.

    Raises:
        LockLost: the block ended without an error, or because its generator was closed. Python discards a
            `GeneratorExit` together with its notes.
    """
    if error is None or isinstance(error, GeneratorExit):
        raise loss
    if not isinstance(error, LockLost) or error.name != loss.name:
        error.add_note(f"lockring: {loss}")


def farewell_of(core: ClientCore) -> bytes:
    """Return the bytes that end all sessions of a core, to be sent to each of its nodes without waiting for answers."""
    return b"".join(encode_frame(CloseSession(_LAST_REQUEST, each.id)) for each in core.sessions())


def abandon_held(core: ClientCore, reason: str) -> list[HolderReference | None]:
    """End all held tickets of a core that will not be used again. Returns the listeners to notify."""
    losers: list[HolderReference | None] = []
    for session in core.sessions():
        for share in list(session.shares.values()):
            for ticket in list(share.tickets.values()):
                if ticket.state == HELD:
                    ticket.state, ticket.reason = ENDED, reason
                    losers.append(ticket.holder)
    return losers
