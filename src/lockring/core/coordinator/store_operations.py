"""The store operations under way: at most one read or write that the term depends on, and one confirming read.

An operation without an answer for `OPERATION_TIMEOUT_NS` is given up: its outcome counts as unknown, and a later
answer belongs to no open operation and is ignored.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState
from lockring.core.effects import Effect, StoreRead, StoreWrite
from lockring.core.timing import earliest
from lockring.ids import OperationNumber, Version
from lockring.units import NS_PER_S

OPERATION_TIMEOUT_NS: Final = 10 * NS_PER_S
"""Time after which a store operation's outcome counts as unknown; a store that slow cannot keep leases going."""

SILENT: Final = f"the store has not answered for {OPERATION_TIMEOUT_NS // NS_PER_S} s"
"""The reason for which an operation is given up, for people."""


class OpenOperation(NamedTuple):
    """An operation without an answer so far.

    Attributes:
        number: of the effect that began it.
        began_ns: when that was.
    """

    number: OperationNumber
    began_ns: int

    def is_overdue(self, now_ns: int) -> bool:
        """Return whether its outcome counts as unknown at this time."""
        return now_ns >= self.began_ns + OPERATION_TIMEOUT_NS


class StoreOperations:
    """Numbers operations and remembers the open ones. Not safe for use by several tasks.

    Args:
        effects: the coordinator's effects, to which new operations are appended.

    Attributes:
        current: the read or write that the term depends on, None if there is none.
        confirming: the read that confirms the term, None if there is none.
        writing: the state that `current` writes, None if it reads.
        retry_at_ns: when to read the store again after a failure, None if nothing has failed.
    """

    def __init__(self, effects: list[Effect]) -> None:
        self.current: OpenOperation | None = None
        self.confirming: OpenOperation | None = None
        self.writing: ClusterState | None = None
        self.retry_at_ns: int | None = None
        self._effects = effects
        self._count = 0

    def read(self, now_ns: int) -> None:
        """Read the store, and give up all other operations under way."""
        self.give_up()
        self.current = self._begin(now_ns)
        self._effects.append(StoreRead(self.current.number))

    def write(self, expected_version: Version, state: ClusterState, now_ns: int) -> None:
        """Write a state, provided that the store has the version that is expected."""
        self.writing = state
        self.current = self._begin(now_ns)
        self._effects.append(StoreWrite(self.current.number, expected_version, state))

    def confirm(self, now_ns: int) -> None:
        """Begin the read that confirms the term."""
        self.confirming = self._begin(now_ns)
        self._effects.append(StoreRead(self.confirming.number))

    def retry_at(self, at_ns: int) -> None:
        """Leave the store alone until this time: give up all operations under way."""
        self.give_up()
        self.retry_at_ns = at_ns

    def give_up(self) -> None:
        """Expect no answer any longer."""
        self.current = self.confirming = self.writing = self.retry_at_ns = None

    def next_deadline_ns(self) -> int | None:
        """Return when an operation is overdue or the store must be read again; None if neither is ahead."""
        if self.current is None and self.confirming is None:
            return self.retry_at_ns
        return earliest(
            None if self.current is None else self.current.began_ns + OPERATION_TIMEOUT_NS,
            None if self.confirming is None else self.confirming.began_ns + OPERATION_TIMEOUT_NS,
            self.retry_at_ns,
        )

    def _begin(self, now_ns: int) -> OpenOperation:
        self._count += 1
        return OpenOperation(OperationNumber(self._count), now_ns)
