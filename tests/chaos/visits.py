"""The common part of a client process's threads: their orders, and how their grants are written down."""

from __future__ import annotations

import os
import threading
from typing import Final, Generic, TypedDict, TypeVar

import msgspec

from lockring.client.grant_state import GrantState
from lockring.clock import monotonic_ns
from lockring.errors import LockLost
from lockring.units import NS_PER_S
from tests.chaos.history import Checked, Complaint, Entered, Failed, Gone, Leaving, Lost, Pen, Verified, Wrote
from tests.chaos.register import Decided

ACQUIRE_S_MAX: Final = 15.0


class Task(msgspec.Struct, frozen=True):
    """The orders of a client process.

    Attributes:
        name: of the process.
        flavour: which client it uses: "threads" (blocking) or "tasks" (asyncio).
        servers: of the cluster.
        history: file for its events.
        register: file of the database.
        seed: of its choices.
        locks: contended ones.
        pages: contended ones that are mostly read: held by one to write, or by many to read.
        held: ones that only this process wants, and never lets go.
        groups: those that it joins.
        keys: of each group.
        hands: how many threads or tasks.
        ttl_s: lease of everything that it acquires.
    """

    name: str
    flavour: str
    servers: str
    history: str
    register: str
    seed: str
    locks: tuple[str, ...]
    pages: tuple[str, ...]
    held: tuple[str, ...]
    groups: tuple[str, ...]
    keys: tuple[str, ...]
    hands: int
    ttl_s: float


G = TypeVar("G", bound=GrantState)


class Visit(Generic[G]):
    """One grant, from its acquire to its release, as it is written down."""

    def __init__(self, task: Task, pen: Pen, grant: G, asked_at_ns: int) -> None:
        at_ns = monotonic_ns()
        left_ns = left_ns_of(grant)
        self._task = task
        self._pen = pen
        self._told = False
        self._telling = threading.Lock()
        self.grant = grant
        pen.write(
            Entered(
                client=task.name,
                pid=os.getpid(),
                lock=grant.name,
                token=grant.fencing_token,
                ttl_ns=int(task.ttl_s * NS_PER_S),
                asked_at_ns=asked_at_ns,
                at_ns=at_ns,
                left_ns=left_ns,
                shared=grant.shared,
            )
        )

    def check(self) -> bool:
        """Look whether the lock is still held, write that down, and return it."""
        at_ns = monotonic_ns()
        left_ns = left_ns_of(self.grant)
        self._pen.write(Checked(**self._who(), at_ns=at_ns, left_ns=left_ns))
        try:
            self.grant.check()
        except LockLost as loss:
            self.lost(loss)
            return False
        return True

    def decided(self, decided: Decided) -> None:
        """The register has decided on a write."""
        looked_at_ns = monotonic_ns()
        left_ns = left_ns_of(self.grant)
        self._pen.write(
            Wrote(
                **self._who(),
                at_ns=decided.at_ns,
                verdict=decided.verdict,
                looked_at_ns=looked_at_ns,
                left_ns=left_ns,
            )
        )

    def leaving(self) -> None:
        """The lock is about to be released."""
        at_ns = monotonic_ns()
        left_ns = left_ns_of(self.grant)
        self._pen.write(Leaving(**self._who(), at_ns=at_ns, left_ns=left_ns))

    def gone(self, loss: LockLost | None) -> None:
        """Release has returned, or raised."""
        if loss is not None:
            self.lost(loss)
        outcome = "lost" if loss else "released"
        self._pen.write(Gone(**self._who(), at_ns=monotonic_ns(), outcome=outcome))

    def lost(self, loss: LockLost) -> None:
        """The grant is lost; written down once. May be called by any thread."""
        at_ns = monotonic_ns()
        with self._telling:
            told, self._told = self._told, True
        if not told:
            self._pen.write(Lost(**self._who(), at_ns=at_ns, reason=loss.reason))

    def verified(self, is_holder: bool) -> None:
        """The cluster has said whether this is the holder."""
        self._pen.write(Verified(**self._who(), at_ns=monotonic_ns(), is_holder=is_holder))

    def arguments(self, doing: str) -> tuple[str, int, str, int, str]:
        """For `Register.write`."""
        return self.grant.name, self.grant.fencing_token, self._task.name, os.getpid(), doing

    def _who(self) -> _Who:
        return {"client": self._task.name, "lock": self.grant.name, "token": self.grant.fencing_token}


class _Who(TypedDict):
    client: str
    lock: str
    token: int


def left_ns_of(grant: GrantState) -> int:
    return int(grant.remaining() * NS_PER_S)


def failed(task: Task, pen: Pen, lock: str, asked_at_ns: int, error: Exception) -> None:
    """An acquire has given up."""
    text = f"{type(error).__name__}: {error}"
    pen.write(Failed(client=task.name, lock=lock, asked_at_ns=asked_at_ns, at_ns=monotonic_ns(), error=text))


def broke_off(task: Task, pen: Pen, error: Exception) -> None:
    """A hand has ended by an error that it does not expect: a finding, not something to lose in a log."""
    text = f"a hand broke off: {type(error).__name__}: {error}"
    pen.write(Complaint(client=task.name, at_ns=monotonic_ns(), text=text))
