"""The events of a server in words."""

from __future__ import annotations

from typing import Final

from lockring.core import events
from lockring.protocol import EventRecord

_REASONS: Final = {
    "expired": "its lease has expired",
    "broken": "an operator had broken its lease",
}


def sentence_of(event: EventRecord) -> str:
    """Return an event as the text of a line: its verb is in the past, and names are in quotation marks."""
    slots = f"{event.slots} slot{'' if event.slots == 1 else 's'}"
    match event.kind:
        case events.FAILOVER:
            return f"{slots} failed over from {event.source} to {event.node}"
        case events.MOVED:
            return f"{slots} moved from {event.source} to {event.node}"
        case events.RESUMED:
            return f"{slots} of {event.node} went on in its next life"
        case events.ASSIGNED:
            return f"{slots} without a primary went to {event.node}"
        case events.VACANT:
            return f"{slots} of {event.source} lost their primary, and no node took over"
        case events.JOINED:
            return f"node {event.node} joined"
        case events.RESTARTED:
            return f"node {event.node} was started again"
        case events.LEFT:
            return f"node {event.node} left"
        case events.FAILED:
            return f"node {event.node} failed: it is not a member any more"
        case events.DRAINING:
            return f"node {event.node} began to drain"
        case events.UNDRAINED:
            return f"node {event.node} may have slots again"
        case events.LEADING:
            return f"the coordinator at {event.source} began to lead"
        case events.COORDINATOR_LOST:
            return f"node {event.node} lost the coordinator"
        case events.COORDINATOR_FOUND:
            return f"node {event.node} found the coordinator again"
        case events.LOST:
            why = _REASONS.get(event.reason, event.reason)
            return f"lock {event.name!r} was lost by {event.owner!r} (token {event.generation}): {why}"
        case events.BROKEN:
            how = "by force" if event.reason == "forced" else "and is free once it lets go or its TTL is over"
            return f"lock {event.name!r} was taken from {event.owner!r} (token {event.generation}) by an operator, {how}"
    return event.kind  # of a newer server
