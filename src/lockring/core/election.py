"""The coordinators of a cluster as their store knows them: the one that leads, and those that stand by."""

from __future__ import annotations

from typing import NamedTuple

from lockring.ids import TermId


class Candidate(NamedTuple):
    """A coordinator that leads, or stands by to lead.

    Attributes:
        term: the name that its term has, or would have: random, and used for one term only.
        address: HOST:PORT at which nodes and clients reach it.
    """

    term: TermId
    address: str


class Election(NamedTuple):
    """The coordinators at one moment, as their store knows them.

    Attributes:
        leader: the coordinator whose lead is not over, None if there is none.
        standbys: the others that have campaigned within their time, by address.
    """

    leader: Candidate | None
    standbys: tuple[Candidate, ...] = ()
