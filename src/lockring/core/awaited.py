"""What everybody is told of a wait for leases of before: why, and how long yet. For people only: nothing is decided by it.

The coordinator knows it, nodes hear of it with each acknowledgement, clients with their routes. A duration travels, and each receiver
counts it from when it came, so that what is told is late rather than early.
"""

from __future__ import annotations

from lockring.units import NS_PER_MS, NS_PER_S


class Awaited:
    """A wait that somebody else has told of, if there is one.

    Attributes:
        why: as the end of a sentence, "" if nothing is waited for.
    """

    __slots__ = ("_until_ns", "why")

    def __init__(self) -> None:
        self.why = ""
        self._until_ns = 0

    def take(self, why: str, left_ms: int, now_ns: int) -> bool:
        """Note what was told now, and return whether the reason is another one."""
        before, self.why = self.why, why
        self._until_ns = now_ns + left_ms * NS_PER_MS
        return before != why

    def left_ms(self, now_ns: int) -> int:
        """How long the wait takes yet at most, in milliseconds, rounded up."""
        return max(0, -((now_ns - self._until_ns) // NS_PER_MS)) if self.why else 0

    def told(self, now_ns: int) -> str:
        """A sentence on the wait, "" if there is none."""
        return sentence(self.why, self.left_ms(now_ns)) if self.why else ""


def sentence(why: str, left_ms: int) -> str:
    """What is waited for, and for how long yet."""
    left_s = -(-left_ms * NS_PER_MS // NS_PER_S)
    return f"{why}; it takes another {left_s} s at the longest" if left_ms else why
