"""Types for what is only an int or a str at run time, so that the type checker distinguishes them.

A slot is not a version, and a session is not a node: two arguments that are swapped do not type-check.
Each value gets its type where it is drawn, counted, decoded or read from a setting.
"""

from __future__ import annotations

from typing import Final, NewType

NodeId = NewType("NodeId", str)
"""A node's name, unique in its cluster."""

SessionId = NewType("SessionId", str)
"""A client's session: random, unique."""

SlotNumber = NewType("SlotNumber", int)
"""A slot of the circle: 0 to `slots.SLOTS` - 1."""

Version = NewType("Version", int)
"""A version of the cluster state; also names the change that made something: a reign's beginning, a copy's joining."""

Epoch = NewType("Epoch", int)
"""The version of the last change to one slot."""

Incarnation = NewType("Incarnation", int)
"""One life of a node's process; a later life has a higher one."""

Generation = NewType("Generation", int)
"""A fencing token: grows with each grant of a lock."""

AcquisitionNumber = NewType("AcquisitionNumber", int)
"""Numbers a session's acquisitions from 1; none is used twice."""

MutationIndex = NewType("MutationIndex", int)
"""Numbers the mutations of one reign from 1."""

RequestNumber = NewType("RequestNumber", int)
"""Numbers the requests of one side of a connection."""

ConnectionId = NewType("ConnectionId", int)
"""A connection, numbered by its owner and never used again."""

NO_REQUEST: Final = RequestNumber(0)
"""Numbers what no request asked for: the refusal of a greeting, or a message that expects no answer."""

NO_VERSION: Final = Version(0)
"""The version of the state before the first."""

NO_GENERATION: Final = Generation(0)
"""Lower than the generation of any grant."""

NO_NODE: Final = NodeId("")
"""The name that stands for no node: a coordinator's, or any."""

NO_INCARNATION: Final = Incarnation(0)
"""Lower than that of any life of a node."""

NO_INDEX: Final = MutationIndex(0)
"""The index before the first mutation of a reign."""
