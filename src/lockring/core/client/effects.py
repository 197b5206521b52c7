"""The effects that the client core asks of its shell.

The shell carries out the effects of one `take_effects` in their order. A *link* is a connection that the core asked
for, numbered by the core and never reused. A message to a link that is gone is dropped: the core learns of that by
`disconnected`, and sends again what matters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lockring.core.client.queries import Query
from lockring.core.client.tickets import Ticket
from lockring.errors import LockringError
from lockring.ids import Generation, LinkId, LockName, SessionId
from lockring.protocol import LockEvent, LockRecord, Message, QueueNotice


class Connect(NamedTuple):
    """Open a connection to HOST:PORT; then call `connected(link)`, or `disconnected(link, reason=…)` if it fails."""

    link: LinkId
    address: str


class Disconnect(NamedTuple):
    """Close a link, or stop trying to open it. The core has forgotten it already: report nothing more of it."""

    link: LinkId
    reason: str


# The two of the hot path are no named tuples: those are made by a function in Python, which takes 0.2 µs.
class SendTo(msgspec.Struct, frozen=True):
    """Send a message on a link."""

    link: LinkId
    message: Message


class Resolve(msgspec.Struct, frozen=True):
    """The open call on a ticket is over.

    Of an acquire: `error` is None if the lock is held now, else why it never will be. Of a release: `error` is None.
    """

    ticket: Ticket
    error: LockringError | None


class GrantLost(NamedTuple):
    """A held ticket was lost. `reason` is as in `errors.LockLost`."""

    ticket: Ticket
    reason: str


class LossOnBehalf(NamedTuple):
    """A node ended an acquisition of a program behind this client.

    Attributes:
        session: of that one acquisition.
        name: the lock.
        reason: as in `errors.LockLost`.
        generation: of the grant that ended, 0 if the node does not say.
    """

    session: SessionId
    name: LockName
    reason: str
    generation: Generation


class LongWait(NamedTuple):
    """An acquire has waited for other holders for long; reported once. `notice` has the first of them."""

    ticket: Ticket
    notice: QueueNotice
    waited_s: float


class CallResult(NamedTuple):
    """A query was answered, or will not be: exactly one of `answer` and `error` is not None."""

    request: Query
    answer: Any
    error: LockringError | None


class Update(NamedTuple):
    """The lock watched by `request`, as it is now; `events` and `gap` as in `core.client.watches`."""

    request: Query
    lock: LockRecord
    events: list[LockEvent]
    gap: bool


class GroupChange(NamedTuple):
    """The group that a member follows by `request` has changed: a view is new or settled, or the membership ended.

    `gained` and `lost` are the slots that the member came to own by that, or ceased to own. If the change is `awaited`,
    the core acknowledges the view only after the shell has run the program's callbacks, and has called `told`.
    """

    request: Query
    gained: frozenset[int]
    lost: frozenset[int]
    awaited: bool


ClientEffect = (
    Connect
    | Disconnect
    | SendTo
    | Resolve
    | GrantLost
    | LossOnBehalf
    | LongWait
    | CallResult
    | Update
    | GroupChange
)
