"""Types for what is only an int or a str at run time, so that the type checker distinguishes them.

A slot is not a version, and a session is not a node: two arguments that are swapped do not type-check.

- A value gets its type where it is born: where it is drawn, counted, decoded or read from a setting. Elsewhere only
  annotations name the type.
- The decoder of messages gives the types for nothing: it sees an int or a str.
- At run time a type is a function that returns its argument. Where acquire, release, keepalive or replicate counts a
  number, the call would cost each of them about 60 ns, so the sum is declared to be of the type:
  `# type: ignore[assignment]  # born here`. Two casts do the same for a whole series: `slots.all_slots`, and the
  numbers that `net.listener` draws for connections.
"""

from __future__ import annotations

from typing import Final, NewType

NodeId = NewType("NodeId", str)
"""A node's name, unique in its cluster."""

ClusterId = NewType("ClusterId", str)
"""A cluster's random id, drawn by its first coordinator; "" while it has none."""

TermId = NewType("TermId", str)
"""A coordinator's term: the random text that it claims the store with; "" before the first claim."""

ClientId = NewType("ClientId", str)
"""A client's random id, the same on each of its connections."""

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

LockName = NewType("LockName", str)
"""A lock's name: 1 to 1,024 bytes of UTF-8."""

AcquisitionNumber = NewType("AcquisitionNumber", int)
"""Numbers a session's acquisitions from 1; none is used twice."""

MutationIndex = NewType("MutationIndex", int)
"""Numbers the mutations of one reign from 1."""

RequestNumber = NewType("RequestNumber", int)
"""Numbers the requests of one side of a connection."""

GreetingNumber = NewType("GreetingNumber", int)
"""Numbers a client's connections: the highest number is that of the connection in use."""

SequenceNumber = NewType("SequenceNumber", int)
"""Numbers the messages that extend a lease, so that an acknowledgement says which of them arrived."""

OperationNumber = NewType("OperationNumber", int)
"""Numbers a coordinator's operations on its store."""

LinkId = NewType("LinkId", int)
"""A client's connection to a server, numbered by the client and never used again."""

ConnectionId = NewType("ConnectionId", int)
"""The number of an accepted connection, given by the shell and never reused."""

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

NEEDS_SNAPSHOT: Final = MutationIndex(-1)
"""The index of a copy that has nothing of the reign yet."""

FIRST_SLOT: Final = SlotNumber(0)
"""Where a walk over all slots begins."""

FIRST_GENERATION: Final = Generation(1)
"""The generation of the first grant in a slot that has reserved no other."""

NO_SESSION: Final = SessionId("")
NO_CLUSTER: Final = ClusterId("")
"""The id of a cluster that has none yet, or of any cluster."""

NO_TERM: Final = TermId("")
"""The term of a state that no coordinator has claimed."""

NO_LINK: Final = LinkId(0)
"""The number of no link."""

NO_SEQUENCE: Final = SequenceNumber(0)
"""The number before the first message that extends a lease."""
