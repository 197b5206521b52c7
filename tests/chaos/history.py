"""The events that the processes of a run write down: one line of JSON per event, each process to a file of its own.

All times are nanoseconds of `lockring.clock.monotonic_ns`, one clock for all processes of the machine. Where an event
says how long a lock is held for (`left_ns`), the clock was read first and the grant asked afterwards: so
`at_ns + left_ns` is never after the client's own deadline, and `left_ns > 0` shows that the lock was held at `at_ns`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

KEY_PREFIX: Final = "key:"


class Event(msgspec.Struct, frozen=True, tag_field="what", kw_only=True):
    """Something that happened."""


class Entered(Event, frozen=True, tag="entered"):
    """An acquire has returned. `asked_at_ns` is when it was called, `ttl_ns` the lease that it asked for, `shared`
    whether others may hold the lock at the same time, shared as well."""

    client: str
    pid: int
    lock: str
    token: int
    ttl_ns: int
    asked_at_ns: int
    at_ns: int
    left_ns: int
    shared: bool = False


class Checked(Event, frozen=True, tag="checked"):
    """A holder has looked whether it still holds its lock."""

    client: str
    lock: str
    token: int
    at_ns: int
    left_ns: int


class Wrote(Event, frozen=True, tag="wrote"):
    """A holder has written to the register. `at_ns` is when the write was decided, `verdict` how: "accepted", "refused"
    (a higher token had been there), "busy" (the database was locked by someone else, so nothing was decided);
    `left_ns` belongs to a look at `looked_at_ns`, after the verdict."""

    client: str
    lock: str
    token: int
    at_ns: int
    verdict: str
    looked_at_ns: int
    left_ns: int


class Leaving(Event, frozen=True, tag="leaving"):
    """A holder is about to call release."""

    client: str
    lock: str
    token: int
    at_ns: int
    left_ns: int


class Gone(Event, frozen=True, tag="gone"):
    """Release has returned: "released", or "lost" if it raised `LockLost`."""

    client: str
    lock: str
    token: int
    at_ns: int
    outcome: str


class Lost(Event, frozen=True, tag="lost"):
    """A grant was lost; from its `on_lost` callback, or from a look at it, whichever came first."""

    client: str
    lock: str
    token: int
    at_ns: int
    reason: str


class Verified(Event, frozen=True, tag="verified"):
    """At the end of the run: what the cluster says of a grant that was held all the while."""

    client: str
    lock: str
    token: int
    at_ns: int
    is_holder: bool


class Failed(Event, frozen=True, tag="failed"):
    """An acquire has given up."""

    client: str
    lock: str
    asked_at_ns: int
    at_ns: int
    error: str


class Owned(Event, frozen=True, tag="owned"):
    """A member of a group has looked, and `owns` said that a key is its own, between `from_ns` and `at_ns`. `token`
    is that of the membership, whose lease lasts for `left_ns` more by a look afterwards; `fence` is what `fence` said
    for the key."""

    client: str
    group: str
    token: int
    key: str
    fence: int
    from_ns: int
    at_ns: int
    left_ns: int


class Regrouped(Event, frozen=True, tag="regrouped"):
    """The `on_change` callback of a member was called at `at_ns` with keys that it gained and lost, and returned
    after `let_go_at_ns`."""

    client: str
    group: str
    token: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    at_ns: int
    let_go_at_ns: int


class Viewed(Event, frozen=True, tag="viewed"):
    """The newest view that a member knew of, and whether it was settled. `at_ns` is before that look."""

    client: str
    group: str
    token: int
    version: int
    settled: bool
    members: tuple[str, ...]
    at_ns: int


class Outage(Event, frozen=True, tag="outage"):
    """A probed lock could not be had for a time that is worth a line."""

    lock: str
    from_ns: int
    until_ns: int


class Probed(Event, frozen=True, tag="probed"):
    """How often the prober has acquired and released since its last such line, and the longest it took."""

    count: int
    at_ns: int
    longest_ns: int


class Stalled(Event, frozen=True, tag="stalled"):
    """A process did not run for a time, though it wanted to: it was frozen, or the machine was too busy.

    `waited_ns` is how long it did not run within the time from `from_ns` to `until_ns`.
    """

    process: str
    from_ns: int
    until_ns: int
    waited_ns: int


class Complaint(Event, frozen=True, tag="complaint"):
    """A client process saw something that must not be, and that no other event shows."""

    client: str
    at_ns: int
    text: str


def name_of_key(group: str, key: str) -> str:
    """How the register and the checker name a key of a group, beside the locks."""
    return f"{KEY_PREFIX}{group}/{key}"


AnyEvent = (
    Entered
    | Checked
    | Wrote
    | Leaving
    | Gone
    | Lost
    | Verified
    | Failed
    | Owned
    | Regrouped
    | Viewed
    | Outage
    | Probed
    | Stalled
    | Complaint
)

_READ_BYTES: Final = 1024 * 1024


class Pen:
    """Writes events to a file, each with one system call: what was written is there, whatever happens next.

    May be shared by threads.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encode = msgspec.json.Encoder().encode

    def write(self, event: AnyEvent) -> None:
        """Append one event."""
        os.write(self._fd, self._encode(event) + b"\n")

    def close(self) -> None:
        """Write no more."""
        os.close(self._fd)


class Tail:
    """Reads the events of a file that is being written, each once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""
        self._decode = msgspec.json.Decoder(AnyEvent).decode

    def read(self) -> list[AnyEvent]:
        """All complete lines that have come since the last call."""
        events: list[AnyEvent] = []
        if not self.path.exists():
            return events
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while data := file.read(_READ_BYTES):
                self._offset += len(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                events += [self._decode(line) for line in lines]
        return events
