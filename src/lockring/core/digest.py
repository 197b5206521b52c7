"""The digest by which a client and a node compare what a session has, in O(1) per keepalive.

A digest is the exclusive-or of a well-mixed 64-bit number per acquisition, so both sides keep it up by one
operation per change, in any order. The mixing is the finalizer of splitmix64 (Steele, Lea and Flood, "Fast
Splittable Pseudorandom Number Generators", OOPSLA 2014). Ids are small and sequential, and both sides are
friends: this guards against divergence, not against an attacker.
"""

from __future__ import annotations

from functools import cache

from lockring.slots import SLOTS

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def mix(number: int) -> int:
    """Return the 64-bit number that stands for an acquisition, or another number, in a digest."""
    z = (number + 1) * 0x9E37_79B9_7F4A_7C15 & _MASK
    z = (z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB & _MASK
    return z ^ (z >> 31)


@cache
def slot_factors() -> tuple[int, ...]:
    """Return a number for each slot, odd and well-mixed.

    A sum over slots, each multiplied by its own, follows a change of one slot in O(1). It shows two that change places.
    """
    return tuple([mix(number) | 1 for number in range(SLOTS)])
