"""What nodes tell of single slots: a primary its copies (the mutations of its locks, and the streams that carry them), a
former primary its successor, and any node the coordinator (asks)."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Put(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=0):
    """A holder was added. `age_ms` is how long ago, when this was written; `payload` is as in `Acquire`."""

    name: str
    mode: int
    permits: int
    session: str
    acquisition: int
    owner: str
    ttl_ms: int
    generation: int
    seq: int
    age_ms: int = 0
    payload: bytes = b""


class Remove(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=1):
    """A holder was removed: released, expired or broken."""

    name: str
    session: str
    acquisition: int


class Touch(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=2):
    """A generation of the slot was used otherwise: as the number of a view of the group whose lock is `name`."""

    name: str
    generation: int


class Revoke(msgspec.Struct, array_like=True, gc=False, frozen=True, tag=3):
    """An operator has ended a grant: no keepalive renews it any more, at no primary."""

    session: str
    acquisition: int


Mutation = Put | Remove | Touch | Revoke


class Snapshot(msgspec.Struct, array_like=True, gc=False, tag=0):
    """All holders of a slot as of `index`, in one or more parts: `part` counts from 0, `last` marks the end. Which of them are revoked
    comes after all of them."""

    slot: int
    since: int
    joined: int
    base: int
    index: int
    highest: int
    part: int
    last: bool
    holders: list[Put | Revoke]


class Tail(msgspec.Struct, array_like=True, gc=False, tag=1):
    """The mutations numbered `after` + 1, `after` + 2, … of a reign; may be empty."""

    slot: int
    since: int
    joined: int
    after: int
    highest: int
    mutations: list[Mutation]


class Resume(msgspec.Struct, array_like=True, gc=False, tag=2):
    """The new primary's table at index 0 of its reign is what the reign `ended_since` had at `ended_index`. A copy that
    ended there (the former primary of a planned move) is at index 0; any other needs a snapshot."""

    slot: int
    since: int
    joined: int
    ended_since: int
    ended_index: int


Stream = Snapshot | Tail | Resume


class HandOverSlot(msgspec.Struct, array_like=True, gc=False):
    """The end of a reign: its mutations after `after`, which end at `index`; `highest` is its highest generation."""

    slot: int
    since: int
    joined: int
    after: int
    index: int
    highest: int
    mutations: list[Mutation]


class AskKind(IntEnum):
    """What a node asks of the coordinator for a slot.

    TAKEOVER: the primary is silent, promote me (its backup). DROP: this copy does not answer, drop it.
    IN_SYNC: this learner has caught up. EXTEND: reserve more generations.
    """

    TAKEOVER = 0
    DROP = 1
    IN_SYNC = 2
    EXTEND = 3


class AskItem(msgspec.Struct, array_like=True, gc=False):
    """One slot of an `Ask`: `epoch` as the asker knows it; the copy meant, as node, incarnation, joined;
    for EXTEND `below` is the end of the range that is running out."""

    slot: int
    epoch: int
    node: str = ""
    incarnation: int = 0
    joined: int = 0
    below: int = 0
