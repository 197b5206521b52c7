"""The lock node's state machine. Shells and the simulation import it from here, and nothing below."""

from lockring.core.node.core import NodeCore
from lockring.core.node.greetings import JoinFacts
from lockring.core.node.status import Doors, NodeStatus

__all__ = ["Doors", "JoinFacts", "NodeCore", "NodeStatus"]
