"""What both clients say of locks: who holds one, and the part of a grant that needs no I/O."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar

from lockring.client.process_bound import ProcessBound
from lockring.clock import monotonic_ns, wall_ns
from lockring.core.client import ClientCore, HolderReference, Ticket, TicketState, deadline_ns_of, not_held
from lockring.errors import InvalidRequest, LockLost, LockringError
from lockring.ids import RequestNumber
from lockring.net.frames import encode_frame
from lockring.protocol import CloseSession, LockRecord, Mode
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S

_LAST_REQUEST: Final = RequestNumber(1 << 53)
"""Above every request number."""

ListenerT = TypeVar("ListenerT")

LossCallback = Callable[[LockLost], object]
"""Called with what `check` would raise: it has the lock's `name` and the `reason`."""


def check_callback(callback: Callable[..., object], taker: str = "on_lost") -> None:
    """Raise InvalidRequest for what cannot be called, and for a coroutine function: calling it would only make a coroutine that never runs."""
    if not callable(callback):
        raise InvalidRequest(f"{taker} takes a function, not {callback!r}")
    if is_kind(inspect.iscoroutinefunction, callback):
        raise InvalidRequest(
            f"{taker} calls a plain function; an async one would never run: let it start a task"
        )


def is_kind(kind: Callable[[Any], bool], function: Callable[..., object]) -> bool:
    """Whether a function is of a kind, or what is called in its stead: of a partial its function, of an object its `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or (not inspect.isroutine(function) and kind(type(function).__call__))


def report_in_thread() -> None:
    """Report the error that is being handled as one of this thread, as `threading` does, whatever its hook is worth."""
    try:
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
    except BaseException:  # noqa: BLE001 - the hook itself has failed: reported as the interpreter does it
        sys.__excepthook__(*sys.exc_info())


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as its node sees it; as text it is the owner.

    Attributes:
        owner: the holder's label.
        session: id of the holder's session.
        fencing_token: of the grant.
        held_s: for how long it has been held, in seconds.
        ttl_s: the lease, in seconds.
        ttl_left_s: how much of it is left unless it is renewed, in seconds; never more than `ttl_s`.
    """

    owner: str
    session: str
    fencing_token: int
    held_s: float
    ttl_s: float
    ttl_left_s: float

    def __str__(self) -> str:
        return self.owner


def holding_of_each(lock: LockRecord) -> list[Holder]:
    """The holders of a lock, in the order of their grants."""
    return [
        Holder(
            each.owner,
            each.session,
            each.generation,
            each.held_ms / 1000,
            each.ttl_ms / 1000,
            each.left_ms / 1000,
        )
        for each in lock.holders
    ]


def is_holder(ticket: Ticket, lock: LockRecord) -> bool:
    """Whether a lock is held by exactly this acquisition."""
    return any(
        (holder.session, holder.acquisition, holder.generation)
        == (ticket.session.id, ticket.acquisition, ticket.generation)
        for holder in lock.holders
    )


def loss_of(ticket: Ticket) -> LockLost:
    """What to raise for a ticket that was lost."""
    error = not_held(ticket)
    assert isinstance(error, LockLost)
    return error


def listener_of(reference: Callable[[], ListenerT | None] | None) -> ListenerT | None:
    """Return the listener that a ticket or query refers to, None if it has none, or if that was dropped."""
    return reference() if reference is not None else None


def tell_lost(reference: HolderReference | None) -> None:
    """Tell whoever holds a ticket that it was lost."""
    loser = listener_of(reference)
    if loser is not None:
        loser._on_ticket_lost()


def what_happened(cause: BaseException) -> str:
    """Why a section ended in its middle, in words."""
    if isinstance(cause, Exception):
        return f"{reason_of(cause)} in the middle of the client's work"
    return f"an interrupt came at the wrong moment ({type(cause).__name__})"


class ExpiryCheck(Protocol):
    """What a grant needs of its client."""

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""

    @property
    def owner(self) -> str:
        """The client's owner label."""

    def notice_expiry(self) -> None:
        """Find out what has expired by now."""


class GrantState(ProcessBound):
    """One acquisition of a lock, as far as it can be told without asking anyone.

    A grant is a value of its own: it belongs to who acquired it, not to a thread or a task.
    """

    _instead = (
        "pass its name and fencing token, for what the lock protects; the lease stays with this process"
    )

    __slots__ = ("_acquired_at_ns", "_callbacks", "_driver", "_owner", "_ticket")

    def __init__(self, driver: ExpiryCheck, ticket: Ticket) -> None:
        self._driver: ExpiryCheck = driver
        self._ticket = ticket
        self._owner = driver.owner
        self._acquired_at_ns = wall_ns()
        self._callbacks: list[LossCallback] | None = None

    @property
    def name(self) -> str:
        """The lock's name."""
        return self._ticket.name

    @property
    def fencing_token(self) -> int:
        """A number greater than that of every earlier grant of this lock; the same for as long as this grant lives.

        Those who read at the same time have different ones.

        Give it to what the lock protects, which can then refuse whoever comes with a smaller one.
        """
        return self._ticket.generation

    @property
    def owner(self) -> str:
        """The label that others see as the holder."""
        return self._owner

    @property
    def session(self) -> str:
        """Id of the session that holds it, as others see it."""
        return self._ticket.session.id

    @property
    def shared(self) -> bool:
        """Whether it is held to read, so that others may hold it at the same time."""
        return self._ticket.mode == Mode.SHARED

    @property
    def acquired_at(self) -> datetime:
        """When it was acquired, by this machine's wall clock, in UTC: for people and logs, not for decisions."""
        return datetime.fromtimestamp(self._acquired_at_ns / NS_PER_S, UTC)

    @property
    def held(self) -> bool:
        """Whether the lock is ours at this moment: neither released nor lost, by a look at the clock."""
        ticket = self._ticket
        if ticket.state != TicketState.HELD:
            return False
        if monotonic_ns() < deadline_ns_of(ticket):
            return True
        self._driver.notice_expiry()
        return ticket.state == TicketState.HELD and monotonic_ns() < deadline_ns_of(ticket)

    def remaining(self) -> float:
        """For how many seconds the lock is surely ours, should nothing be heard from the cluster any more; 0.0 if it is not."""
        if not self.held:
            return 0.0
        return max(0, deadline_ns_of(self._ticket) - monotonic_ns()) / NS_PER_S

    def check(self) -> Self:
        """Return the grant if the lock is held.

        Raises:
            LockLost: it was lost.
            NotHeld: it was released.
        """
        if not self.held:
            raise self._why_not_held()
        return self

    def _why_not_held(self) -> LockringError:
        ticket = self._ticket
        if ticket.state == TicketState.HELD:  # the clock says so, and the client has not come to it yet
            return LockLost(
                f"the lock {ticket.name!r} was lost: local-deadline",
                name=ticket.name,
                reason="local-deadline",
            )
        return not_held(ticket)

    @property
    def _loss(self) -> LockLost | None:
        """What `check` raises if the lock was lost, else None."""
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
"""Grants and memberships of whose end somebody wants to hear: those are not dropped, though nothing else may refer to them."""


def keep_from_being_dropped(holder: object) -> None:
    """Somebody wants to hear of the end of a grant, or of changes in a membership."""
    _awaited[id(holder)] = holder


def may_be_dropped(holder: object) -> None:
    """There is nothing more to hear of a grant or membership."""
    _awaited.pop(id(holder), None)


def give_up_dropped(grant: GrantState, ticket: Ticket) -> None:
    """A grant is held to which nothing refers any more: give its lock up, and warn."""
    grant._driver.drop(ticket)
    warnings.warn(words_of_drop(ticket), ResourceWarning, source=grant, stacklevel=3)


def words_of_drop(ticket: Ticket) -> str:
    """What to say of a grant that was dropped while it was held."""
    return f"the grant of {ticket.name!r} was dropped while it was held, so the lock is given up: keep the grant, and release it"


def blame(error: BaseException | None, loss: LockLost) -> None:
    """At the end of a block whose lock was lost: raise that, or note it on the error that ended the block.

    Raises:
        LockLost: the block ended without an error, or as a generator that was closed: that swallows its own with all notes.
    """
    if error is None or isinstance(error, GeneratorExit):
        raise loss
    if not isinstance(error, LockLost) or error.name != loss.name:
        error.add_note(f"lockring: {loss}")


def farewell_of(core: ClientCore) -> bytes:
    """The last words of a core that will hear no answer: the end of all its sessions, for each of its nodes."""
    return b"".join(encode_frame(CloseSession(_LAST_REQUEST, each.id)) for each in core.sessions())


def abandon_held(core: ClientCore, reason: str) -> list[HolderReference | None]:
    """End whatever a core holds that will not be used again; returns who is to hear of it."""
    losers: list[HolderReference | None] = []
    for session in core.sessions():
        for share in list(session.shares.values()):
            for ticket in list(share.tickets.values()):
                if ticket.state == TicketState.HELD:
                    ticket.state, ticket.reason = TicketState.ENDED, reason
                    losers.append(ticket.holder)
    return losers
