"""Looking at locks and at past events, watching locks, and ending a grant."""

from lockring.ids import (
    FIRST_SLOT,
    NO_VERSION,
    Generation,
    LockName,
    RequestNumber,
    SlotNumber,
    Version,
)
from lockring.protocol.base import Message
from lockring.protocol.infos import EventRecord, LockEvent, LockRecord, LockSearch


class Describe(Message, tag=14):
    """Ask for one lock, held or free; with `asks_rights`, for the asker's rights too. Answered `DescribeReply`."""

    request: RequestNumber
    name: LockName
    version: Version = NO_VERSION
    asks_rights: bool = False


class DescribeReply(Message, tag=24):
    """The answer to `Describe`.

    If that was asked, `rights` are those that the asker has for the lock, as verbs, and `identity` is the asker in one
    text. A server that checks no rights says all of them and "", one of an older version says None.
    """

    request: RequestNumber
    lock: LockRecord
    rights: list[str] | None = None
    identity: str = ""


class List(Message, tag=15):
    """Ask for this node's locks, held or waited for, whose name starts with `prefix`, a page at a time.

    Start with slot 0 and name ""; continue from where `ListReply` says. `limit` is 1 to 10,000.

    With `search`, the page has the first locks by name that it wants in the next slots, at most 1,001, and `after_name`
    is "". An older node does not know it, and answers as if it were not there: `ListReply.counts` shows that.
    """

    request: RequestNumber
    prefix: str
    from_slot: SlotNumber = FIRST_SLOT
    after_name: str = ""
    limit: int = 1000
    search: LockSearch | None = None


class ListReply(Message, tag=25):
    """A page of locks. `next_slot` is -1 after the last one.

    `unserved` counts those slots of this page that this node is the primary of but may not answer for at present.
    `counts` is the answer to a search: of each lock, the number of its holders and of its waiters. Its record has only
    the first eight of both. `matched` is how many locks in the slots of this page are wanted, whatever bounds are set
    to their names; -1 where that is not counted.
    """

    request: RequestNumber
    locks: list[LockRecord]
    next_slot: SlotNumber
    next_name: str
    unserved: int = 0
    counts: list[tuple[int, int]] | None = None
    matched: int = 0


class Watch(Message, tag=16):
    """Subscribe to a lock: `WatchNotice` now and after every change, until `Unwatch`, or `Refusal` when it moves."""

    request: RequestNumber
    name: LockName
    version: Version = NO_VERSION


class Unwatch(Message, tag=17):
    """End the watch or the subscription that the request numbered `watch` started. Answered `ReleaseReply`."""

    request: RequestNumber
    watch: RequestNumber


class WatchNotice(Message, tag=26):
    """The watched lock as it is now; `request` is the watch's.

    `events` lead from the last `WatchNotice` of this watch to this one, in order; the first has none. With `gap`, some
    are missing.
    """

    request: RequestNumber
    lock: LockRecord
    events: list[LockEvent] = []
    gap: bool = True


class Break(Message, tag=18):
    """End a holder's lease by its generation. The holder is notified, and its lease is not renewed.

    The lock is free once the holder lets go or its TTL has passed; with `force`, at once, and then two clients may
    believe that they hold it.
    """

    request: RequestNumber
    name: LockName
    generation: Generation
    force: bool = False
    version: Version = NO_VERSION


class BreakReply(Message, tag=27):
    """The answer to `Break`. `freed`: the lock is free already; otherwise it will be within `within_ms`."""

    request: RequestNumber
    freed: bool
    within_ms: int


class GetEvents(Message, tag=47):
    """Ask a server for the events that it remembers: the newest of those that fit. Answered `EventsReply`.

    `limit` is 1 to 1,000. Events fit whose lock begins with `prefix` (those of no lock only if it is ""), whose kind is
    one of `kinds` (any if there are none), whose number is above `after` and, unless that is 0, below `before`, and
    that are no older than `age_ms`, unless that is -1. With `name`, the last events of this lock fit, and the last
    change of the primary of its slot; servers keep these for longer.
    """

    request: RequestNumber
    prefix: str = ""
    kinds: list[str] = []
    after: int = 0
    before: int = 0
    limit: int = 100
    age_ms: int = -1
    name: str = ""


class EventsReply(Message, tag=48):
    """The answer to `GetEvents`, oldest first.

    `more`: older ones fit too. `gap`: events above `after` were forgotten. `last` is the number of the server's newest
    event, whether or not it fits; `origin` names the memory, which begins afresh with each life of a server.
    The memory has the changes of all cluster states that are newer than `since`.
    """

    request: RequestNumber
    events: list[EventRecord]
    more: bool
    gap: bool
    last: int
    origin: str
    since: Version = NO_VERSION


class FindSimilar(Message, tag=38):
    """Ask a node for locks in use whose names are like `name`, slot by slot from `from_slot` on.

    Answered `SimilarReply`.
    """

    request: RequestNumber
    name: LockName
    from_slot: SlotNumber = FIRST_SLOT


class SimilarReply(Message, tag=39):
    """The answer to `FindSimilar`: some names, the most alike first. `next_slot` is where to go on, -1 at the end.

    `is_partial`: a slot had too many names for one answer, and some were left out.
    """

    request: RequestNumber
    names: list[str]
    next_slot: SlotNumber
    is_partial: bool = False
