"""A lock as JSON, as all commands print it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lockring.cli.output import clock_time

if TYPE_CHECKING:
    from lockring import LockInfo
    from lockring.cluster_state import ClusterState


def facts(lock: LockInfo, state: ClusterState | None = None) -> dict[str, Any]:
    """Return a lock as a JSON object, the same in every command.

    Args:
        lock: as its primary sees it.
        state: to find the slot's backup, if the command shows it.
    """
    found: dict[str, Any] = {
        "name": lock.name,
        "mode": lock.mode,
        "held": lock.held,
        "holders": [
            {
                "owner": each.owner,
                "session": each.session,
                "fencing_token": each.fencing_token,
                "since": clock_time(each.held_s),
                "held_s": each.held_s,
                "ttl_s": each.ttl_s,
                "ttl_left_s": each.ttl_left_s,
                "renewed_s": each.renewed_s,
                "host": each.host or None,
                "pid": each.pid or None,
                "away_s": each.away_s,
                "broken": each.broken,
            }
            for each in lock.holders
        ],
        "waiters": [
            {"owner": each.owner, "session": each.session, "mode": each.mode, "waited_s": each.waited_s}
            for each in lock.waiters
        ],
        "fencing_token_last": lock.fencing_token_last,
        "slot": lock.slot,
        "primary": lock.primary,
    }
    if state is not None:
        backup = state.slots[lock.slot].backup
        found["backup"] = None if backup is None else backup.replica.node
    return found
