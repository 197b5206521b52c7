"""What a primary tells its copies of one slot: the mutations of its locks, and the streams that carry them."""

from __future__ import annotations

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


Mutation = Put | Remove | Touch


class Snapshot(msgspec.Struct, array_like=True, gc=False, tag=0):
    """All holders of a slot as of `index`, in one or more parts: `part` counts from 0, `last` marks the end."""

    slot: int
    since: int
    joined: int
    base: int
    index: int
    highest: int
    part: int
    last: bool
    holders: list[Put]


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
