"""Every metric, with its type, its labels and its meaning. A test compares it with the table in `docs/metrics.md`."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Kind = Literal["gauge", "counter", "histogram", "info"]


class Metric(NamedTuple):
    """A metric.

    Attributes:
        kind: its type.
        labels: the names of its labels.
        meaning: in one sentence.
    """

    kind: Kind
    labels: tuple[str, ...]
    meaning: str


PREFIX_LABEL: Final = "prefix"
"""The label that metrics of locks have besides, if prefixes are configured."""

METRICS: Final[dict[str, Metric]] = {
    "lockring_build_info": Metric("info", ("version", "protocol", "build"), "The version that runs."),
    "lockring_node_info": Metric("info", ("node", "cluster"), "The node and its cluster."),
    "lockring_locks": Metric("gauge", ("mode",), "Locks that are held at their primary here."),
    "lockring_lock_holders": Metric("gauge", (), "Holders of these locks."),
    "lockring_lock_waiters": Metric("gauge", ("mode",), "Acquires that wait here."),
    "lockring_sessions": Metric("gauge", (), "Sessions of clients at the node, served and copied."),
    "lockring_connections": Metric("gauge", ("port",), "Open connections."),
    "lockring_acquire_wait_seconds": Metric(
        "histogram", ("mode", "outcome"), "The wait of acquires until they were granted or ended."
    ),
    "lockring_hold_seconds": Metric("histogram", ("mode",), "How long locks were held that are free again."),
    "lockring_grants_total": Metric("counter", ("mode",), "Grants that were answered."),
    "lockring_releases_total": Metric("counter", ("mode",), "Holders that have released their lock."),
    "lockring_losses_total": Metric("counter", ("reason",), "Holders that have lost their lock."),
    "lockring_breaks_total": Metric("counter", ("force",), "Leases that operators have broken."),
    "lockring_renewals_total": Metric(
        "counter", ("verdict",), "Keepalives of sessions: all agreed, compared, or refused."
    ),
    "lockring_lease_remaining_ratio": Metric(
        "histogram", (), "The part of its lease that a session had left when it was renewed."
    ),
    "lockring_requests_total": Metric("counter", ("kind", "code"), "Requests of clients that were answered."),
    "lockring_request_duration_seconds": Metric(
        "histogram",
        ("kind",),
        "Acquire: from a grant until its answer leaves. Batch: the handling of the requests that came in one read.",
    ),
    "lockring_grpc_calls_total": Metric("counter", ("method", "code"), "Calls of gRPC that have ended."),
    "lockring_slots": Metric("gauge", ("role",), "Slots of the node, by its part in them."),
    "lockring_slots_without_primary": Metric(
        "gauge", (), "Slots that no node serves, by the leading coordinator."
    ),
    "lockring_slots_without_backup": Metric(
        "gauge", (), "Slots without a copy in sync, by the leading coordinator."
    ),
    "lockring_slot_moves_in_progress": Metric(
        "gauge", (), "Slots that are being copied, by the leading coordinator."
    ),
    "lockring_slot_moves_total": Metric(
        "counter", ("kind",), "Slots that have got another primary, by the leading coordinator."
    ),
    "lockring_members": Metric("gauge", ("condition",), "Nodes of the cluster, by the leading coordinator."),
    "lockring_replication_lag_seconds": Metric(
        "histogram", (), "From the sending of changes to a copy until its acknowledgement."
    ),
    "lockring_backup_lease_remaining_seconds": Metric(
        "gauge", (), "The shortest lease that the node has of its copies."
    ),
    "lockring_coordinator_lease_remaining_seconds": Metric(
        "gauge", (), "The lease that the node has of the coordinator, 0 once it is over."
    ),
    "lockring_journal_failing": Metric("gauge", (), "1 while the node cannot write its journal, else 0."),
    "lockring_coordinator_leader": Metric("gauge", (), "1 at the coordinator that leads, else 0."),
    "lockring_state_version_timestamp_seconds": Metric(
        "gauge", (), "When the coordinator got the newest cluster state, in seconds since 1970."
    ),
    "lockring_store_operation_seconds": Metric(
        "histogram", ("op",), "The time that operations on the coordinator's store took."
    ),
    "lockring_store_errors_total": Metric(
        "counter", ("op", "kind"), "Operations on the store that failed, or were given up before they began."
    ),
    "lockring_event_loop_lag_seconds": Metric(
        "histogram", (), "How late the event loop came to a timer, four times a second."
    ),
    "lockring_gc_pause_seconds_total": Metric("counter", (), "The time that garbage collections took."),
    "lockring_auth_failures_total": Metric(
        "counter", ("reason",), "Connections and handshakes that were refused."
    ),
    "lockring_denied_total": Metric("counter", ("act",), "Requests that were refused for lack of a right."),
    "lockring_would_refuse_total": Metric(
        "counter", (), "Requests that would be refused, where rights are only tried out."
    ),
    "lockring_throttled_total": Metric(
        "counter", ("limit",), "Requests that were refused by a limit of their identity."
    ),
    "lockring_tls_certificate_expiry_timestamp_seconds": Metric(
        "gauge", ("port",), "When a certificate of this process ends, in seconds since 1970."
    ),
}
"""By name, in the order of the page."""
