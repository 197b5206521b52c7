"""The events of several servers as one list, without those that several report, and long moves in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from lockring.core.events import MOVED
from lockring.ids import NO_VERSION, Version
from lockring.protocol import EventRecord, EventsReply

_SAME_MOVE_MS: Final = 5_000
"""Moves between the same nodes belong together if no more time than this is between them."""


class ServerEvent(NamedTuple):
    """An event, and a server that has reported it."""

    server: str
    event: EventRecord


def merged(replies: Mapping[str, EventsReply], *, above: Version = NO_VERSION) -> list[ServerEvent]:
    """Return the events of several servers, oldest first.

    Every server has the changes of the cluster states that it knows. Those of the first one count, and from each
    further one those that are older than all that the servers before it can have.

    Args:
        replies: by server, in the order in which servers are trusted with the changes of the cluster: the coordinator
            first.
        above: changes of the cluster up to this version are left out, since the reader has them.
    """
    found: list[ServerEvent] = []
    known_above: Version | None = None
    for server, reply in replies.items():
        for event in reply.events:
            is_new = known_above is None or event.version <= known_above
            if event.version == NO_VERSION or (is_new and event.version > above):
                found.append(ServerEvent(server, event))
        known_above = reply.since if known_above is None else min(known_above, reply.since)
    found.sort(key=_newest_last)
    return found


def _newest_last(each: ServerEvent) -> tuple[int, Version, int]:
    return -each.event.age_ms, each.event.version, each.event.number


def condensed(found: Iterable[ServerEvent]) -> list[ServerEvent]:
    """Return events with one in the place of the many moves by which one node hands its slots to another.

    Args:
        found: oldest first. The move in the result stands where the last of them stood, and has the sum of their slots.
    """
    kept: dict[int, ServerEvent] = {}
    moves: dict[tuple[str, str], int] = {}
    for place, each in enumerate(found):
        event = each.event
        if event.kind == MOVED:
            pair = (event.source, event.node)
            before = kept.get(moves.get(pair, -1))
            if before is not None and before.event.age_ms - event.age_ms <= _SAME_MOVE_MS:
                del kept[moves[pair]]
                slots = before.event.slots + event.slots
                each = each._replace(event=msgspec.structs.replace(event, slots=slots))
            moves[pair] = place
        kept[place] = each
    return list(kept.values())


def newest_version(events: Iterable[ServerEvent]) -> Version:
    """Return the version of the newest change of the cluster among events, `NO_VERSION` if there is none."""
    return max((each.event.version for each in events), default=NO_VERSION)
