"""The lock node's state machine. Shells and the simulation import it from here, and nothing below."""

from lockring.core.node.core import NodeCore
from lockring.core.node.counters import (
    ENDINGS,
    EXPIRED,
    MODES,
    OUTCOMES,
    PREFIXES_MAX,
    RELEASED,
    TENTHS,
    LockCounters,
    NodeCounters,
)
from lockring.core.node.greetings import JoinFacts
from lockring.core.node.status import Doors, NodeHoldings, NodeStatus

__all__ = [
    "ENDINGS",
    "EXPIRED",
    "MODES",
    "OUTCOMES",
    "PREFIXES_MAX",
    "RELEASED",
    "TENTHS",
    "Doors",
    "JoinFacts",
    "LockCounters",
    "NodeCore",
    "NodeCounters",
    "NodeHoldings",
    "NodeStatus",
]
