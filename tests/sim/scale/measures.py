"""The measures of a cluster that forms, rests, and gets one more node; with the targets for a thousand nodes."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.sim.scale.cluster import MS, S, ScaleCluster

HEARTBEATS = frozenset({"Heartbeat", "HeartbeatAck", "Replicate", "ReplicateAck"})
"""Messages that nodes send at rest too. Snapshots of empty slots are among them, and take little."""


class Measure(NamedTuple):
    """The cost of one phase.

    Attributes:
        phase: its name.
        seconds: how long it has taken, in simulated time.
        sent: bytes that all have sent.
        decided: those of them that are not heartbeats.
        writes: number of writes to the store.
        reads: number of reads of the store.
        processor_ms: processor time: of the coordinator, or of a node for its clients.
    """

    phase: str
    seconds: float
    sent: int
    decided: int
    writes: int
    reads: int
    processor_ms: float


class Figures(NamedTuple):
    """The measures of one cluster.

    Attributes:
        forming: all nodes start within some seconds.
        resting: nothing happens for some seconds.
        joining: one more node starts; processor time beyond that at rest.
        clients: the same for a node with many clients; bytes sent to them.
        idle_ms: processor time of the coordinator in a second at rest.
    """

    forming: Measure
    resting: Measure
    joining: Measure
    clients: Measure
    idle_ms: float


class _Phase:
    """Counts from its start."""

    def __init__(self, cluster: ScaleCluster) -> None:
        self._cluster = cluster
        self._from_ns = cluster.now_ns
        self._bytes = dict(cluster.bytes_sent)
        self._writes, self._reads = cluster.writes, cluster.reads
        self._processor_ns = cluster.processor_ns

    def measure(self, name: str) -> Measure:
        """Return what there was since the start."""
        cluster = self._cluster
        sent = {kind: size - self._bytes.get(kind, 0) for kind, size in cluster.bytes_sent.items()}
        return Measure(
            name,
            (cluster.now_ns - self._from_ns) / S,
            sum(sent.values()),
            sum(size for kind, size in sent.items() if kind not in HEARTBEATS),
            cluster.writes - self._writes,
            cluster.reads - self._reads,
            (cluster.processor_ns - self._processor_ns) / MS,
        )


def measured(nodes: int, clients: int, *, spread_s: float = 5, rest_s: int = 2) -> Figures:
    """Form a cluster and measure it.

    Args:
        nodes: how many there are before the last joins.
        clients: how many one of them has.
        spread_s: within how many seconds the nodes start.
        rest_s: how long the cluster is left alone.
    """
    cluster = ScaleCluster()
    phase = _Phase(cluster)
    draw = random.Random(1)
    for number, start_ns in enumerate(sorted(int(draw.random() * spread_s * S) for _ in range(nodes))):
        cluster.at(start_ns, cluster.add_node, f"node-{number:04d}")
    cluster.run(int(spread_s * S) + 1)
    cluster.run_until(cluster.is_settled, 300 * S)
    forming = phase.measure(f"{nodes} nodes form")
    phase = _Phase(cluster)
    cluster.run(rest_s * S)
    resting = phase.measure("at rest")
    served = cluster.nodes["node-0000"]
    cluster.connect_clients(served, clients)
    served.is_measured, before = True, cluster.client_bytes
    phase = _Phase(cluster)
    cluster.add_node("one-more")
    cluster.run(S)
    cluster.run_until(cluster.is_settled, 60 * S)
    joining = phase.measure("one more joins")
    at_rest_ms = resting.processor_ms / resting.seconds * joining.seconds
    to_clients = Measure(
        f"the same for {clients} clients of one node",
        joining.seconds,
        cluster.client_bytes - before,
        cluster.client_bytes - before,
        0,
        0,
        served.processor_ns / MS,
    )
    joining = joining._replace(
        sent=joining.sent - to_clients.sent,
        decided=joining.decided - to_clients.sent,
        processor_ms=joining.processor_ms - at_rest_ms,
    )
    return Figures(forming, resting, joining, to_clients, cluster.idle_processor_ms(5))
