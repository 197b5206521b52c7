"""The figures that all servers of a process share."""

from __future__ import annotations

from lockring._version import __version__
from lockring.build_kind import BUILD
from lockring.protocol import PROTOCOL
from lockring.server.access_gate import AccessGate
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.loop_watch import LoopWatch
from lockring.server.tls import ServerTls
from lockring.units import NS_PER_S


def add_process(figures: Figures, watch: LoopWatch, tls: ServerTls | None, *, http_connections: int) -> None:
    """Add the figures of the process.

    Args:
        figures: the values so far.
        watch: of its event loop.
        tls: its TLS, None without.
        http_connections: how many connections its HTTP port has.
    """
    figures.add("lockring_build_info", 1, version=__version__, protocol=str(PROTOCOL), build=BUILD)
    figures.add_histogram("lockring_event_loop_lag_seconds", [watch.lag])
    figures.add("lockring_gc_pause_seconds_total", watch.gc_ns / NS_PER_S)
    figures.add("lockring_connections", http_connections, port="http")
    if tls is not None:
        for each in tls.policy.expiries():
            figures.add("lockring_tls_certificate_expiry_timestamp_seconds", each.not_after_s, port=each.side)
        for gate in tls.gates:
            figures.add("lockring_auth_failures_total", gate.failed, reason="handshake")
            figures.add("lockring_auth_failures_total", gate.timed_out, reason="handshake-timeout")
            figures.add("lockring_auth_failures_total", gate.crowded_out, reason="handshake-crowded")


def add_gate(figures: Figures, gate: AccessGate) -> None:
    """Add the figures of one server's access control."""
    for reason, count in gate.failures.items():
        figures.add("lockring_auth_failures_total", count, reason=reason)
    for act, count in gate.denied.items():
        figures.add("lockring_denied_total", count, act=act)
    figures.add("lockring_would_refuse_total", gate.would_refuse)
