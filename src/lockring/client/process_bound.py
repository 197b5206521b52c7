"""What belongs to one process: clients, and whatever works through one."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex

from lockring.errors import NotCopyable


class ProcessBound:
    """Neither copied nor pickled: a lease that two objects or processes took for their own would have two holders."""

    __slots__ = ()

    _instead: ClassVar[str] = "make a client there, from the addresses of the servers"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise NotCopyable(
            f"a lockring {type(self).__name__} cannot be copied, pickled or sent to another process, since its connections and leases belong "
            f"to this one: {self._instead}"
        )
