"""The base of clients, and of all objects that work through one: they belong to one process."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from lockring.errors import NotCopyable


class ProcessBound:
    """Refuses copying and pickling: two objects or processes that shared one lease would both believe they hold it."""

    __slots__ = ()

    _instead: ClassVar[str] = "make a client there, from the addresses of the servers"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise NotCopyable(
            f"a lockring {type(self).__name__} cannot be copied, pickled or sent to another process, since its"
            f" connections and leases belong to this one: {self._instead}"
        )
