"""A holder of a lock, as descriptions of locks and errors of acquires name it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A client that holds a lock, as the lock's node sees it. Its text is the owner label.

    Attributes:
        owner: the holder's label.
        session: the id of the holder's session.
        fencing_token: the fencing token of its grant.
        held_s: how long it has held the lock, in seconds.
        ttl_s: its lease, in seconds.
        ttl_left_s: the rest of the lease unless it is renewed, in seconds: 0.0 to `ttl_s`.
        renewed_s: how long ago it was heard last, in seconds, or the node took the lock over, if that was later. None
            if the node does not say, being of an older version.
        host: the host that its process has named, "" if it is not known.
        pid: the number of its process on that host, 0 if it is not known.
        away_s: how long its connection to the node has been gone, in seconds; None while there is one, or if the node
            does not know of one.
        broken: whether an operator has broken its lease, which is not renewed any more.
    """

    owner: str
    session: str
    fencing_token: int
    held_s: float
    ttl_s: float
    ttl_left_s: float
    renewed_s: float | None = None
    host: str = ""
    pid: int = 0
    away_s: float | None = None
    broken: bool = False

    def __str__(self) -> str:
        return self.owner
