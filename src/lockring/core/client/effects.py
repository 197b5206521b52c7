"""What the client core asks its shell to do.

The shell carries the effects of one `take_effects` out in their order. A *link* is a connection that the core asked for,
numbered by the core and never reused; what is sent on a link that is gone is dropped, since the
core hears of it by `disconnected` and sends again what matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lockring.errors import LockringError
from lockring.protocol import LockEvent, LockRecord, Message

if TYPE_CHECKING:
    from lockring.core.client.queries import Query
    from lockring.core.client.tickets import Ticket


class Connect(NamedTuple):
    """Open a connection to HOST:PORT; then call `connected(link)`, or `disconnected(link, reason)` if it fails."""

    link: int
    address: str


class Disconnect(NamedTuple):
    """Close a link, or stop trying to open it. The core has forgotten it already: report nothing more of it."""

    link: int
    reason: str


class SendTo(NamedTuple):
    """Send a message on a link."""

    link: int
    message: Message


class Resolve(NamedTuple):
    """The open call on a ticket is over.

    Of an acquire: `error` is None if it is held now, else why it is not (and never will be). Of a release:
    `error` is None.
    """

    ticket: Ticket
    error: LockringError | None


class GrantLost(NamedTuple):
    """A held ticket is not held any more. `reason` is as in `errors.LockLost`."""

    ticket: Ticket
    reason: str


class CallResult(NamedTuple):
    """A question was answered, or will not be: exactly one of `answer` and `error` is not None."""

    request: Query
    answer: Any
    error: LockringError | None


class Update(NamedTuple):
    """The lock that is watched by `request`, as it is now; `events` and `gap` as in `core.client.watches`."""

    request: Query
    lock: LockRecord
    events: list[LockEvent]
    gap: bool


class GroupChange(NamedTuple):
    """The group of a member that follows it by `request` has changed: a new view, a settled one, or the end of the membership.

    `gained` and `lost` are the slots that became its own by that, or ceased to be. Where `awaited` says so, the core waits
    until the shell has told the program above, of one change after the other, and has called `told`.
    """

    request: Query
    gained: frozenset[int]
    lost: frozenset[int]
    awaited: bool


ClientEffect = Connect | Disconnect | SendTo | Resolve | GrantLost | CallResult | Update | GroupChange
