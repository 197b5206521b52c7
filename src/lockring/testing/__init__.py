"""Support for tests of programs that use lockring: a real cluster on this machine, with all the faults it may have."""

from __future__ import annotations

from lockring.server.settings import Durability
from lockring.testing.local_cluster import COORDINATOR, ClusterFailed, LocalCluster
from lockring.testing.network import Network, Place

__all__ = ["COORDINATOR", "ClusterFailed", "Durability", "LocalCluster", "Network", "Place"]
