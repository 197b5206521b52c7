"""Events: what has happened in the cluster and to its locks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lockring.core import events as kinds
from lockring.core.event_words import sentence_of
from lockring.core.merged_events import condensed, merged
from lockring.protocol import EventsReply
from lockring.views.words import clock_time

_BAD: Final = frozenset({kinds.FAILED, kinds.VACANT, kinds.LOST, kinds.COORDINATOR_LOST})
_WARN: Final = frozenset({kinds.FAILOVER, kinds.BROKEN, kinds.DRAINING, kinds.RESTARTED})


@dataclass(frozen=True, slots=True)
class EventView:
    """An event.

    Attributes:
        at: when it was, as RFC 3339 in UTC.
        age_s: how long ago, in seconds.
        kind: a word of `core.events`.
        weight: "bad", "warn" or "ok".
        text: the event as a sentence.
        name: the lock, "" for none.
        node: the node, "" for none.
        server: the server that remembers it.
    """

    at: str
    age_s: float
    kind: str
    weight: str
    text: str
    name: str
    node: str
    server: str


@dataclass(frozen=True, slots=True)
class EventsView:
    """The newest events.

    Attributes:
        events: newest first.
        has_more: whether there are older ones.
        silent: servers that did not answer, each with the reason; events of theirs may be missing.
        command: the command that shows the same.
    """

    events: list[EventView]
    has_more: bool
    silent: list[str]
    command: str


def event_views(replies: Mapping[str, EventsReply], *, wall_s: float) -> list[EventView]:
    """Return the events of several servers, newest first.

    Args:
        replies: by server.
        wall_s: the time, in seconds since 1970.
    """
    found = condensed(merged(replies))
    return [
        EventView(
            at=clock_time(wall_s, each.event.age_ms / 1000),
            age_s=each.event.age_ms / 1000,
            kind=each.event.kind,
            weight="bad" if each.event.kind in _BAD else "warn" if each.event.kind in _WARN else "ok",
            text=sentence_of(each.event),
            name=each.event.name,
            node=each.event.node,
            server=each.server,
        )
        for each in reversed(found)
    ]
