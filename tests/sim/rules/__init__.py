"""Rules switched off, one at a time, to see that the checkers notice: a checker that cannot fail proves nothing.

Each mutant replaces methods of the real core classes (of the copy that the simulation has); its docstring says which
rule is gone. Beside it stands its drill: a situation made for that rule, in which all holds with the rule, and a
checker speaks up without it. Random seeds reach many of these situations too, but rarely.

Some rules of the core have no mutant here, since nothing that must hold breaks without them. That is by argument, not
for want of a find:

- *A grant is answered only after one more look at the right to serve.* With `sync`, what is answered is in every copy
  that may reign next; that one keeps it for a whole TTL from when it begins, and no promise is longer than what was
  left of the coordinator's lease. It stays: a stale primary should be silent, and `async` has no copies to rely on.
- *After a stall, what has arrived is read before anything expires.* A node's deadline is later than the client's
  anyway; without the rule locks would be lost for nothing, but not too early.
- *A promise to a replica that has left is remembered until it is over.* A replica has left if another life of
  the same node has replaced it, so its process is gone. It stays, for two processes that were given one id by mistake.
- *A store compares the leader with each write.* The version suffices: a new leader's first write raises it, and a
  former leader that is faster than that still has the right to write. It stays, so that a former leader is refused
  before its successor's claim, not after it.
- *Results of store operations go only to the lead that began them.* Each core counts its operations from 1,
  so that a former lead's result could pass for the present one's. But a process has one operation under way, and ends
  those of the former lead before it begins the first of the present one, which is a read. A state that was read too
  early makes the claim fail, since that compares the version. It stays, for a shell that does several at once.
- *All connections end when a lead begins or ends.* Both sides would find out by themselves: nodes hang up on a
  coordinator that acknowledges nothing, clients on a server that does not answer. It stays, since that takes seconds.
- *A coordinator whose term is over resigns.* Its lead ends by itself. It stays, for the same reason.
- *A node refuses a peer if the cluster knows a later life of it.* A message of a former life does no more harm than
  one that was long under way, and such messages may come at any time.
- *A peer sends what primaries send, and nothing else; a hello names the protocol; a join has values in their bounds.*
  Our own servers do so. It stays, against others (`make fuzz`).
- *A node leaves a coordinator of another cluster that has welcomed it.* The coordinator would have refused it
  (`join_of_another_cluster`), and a node takes no state of another cluster.
- *A node for which a difference did not fit asks for the whole state at once.* Its heartbeats bear the old version, and
  the state comes after two of them.
- *Digests are compared per slot, then one by one.* A node that may serve a slot knows all that its clients hold in
  it, except what an operator has ended (`broken_renewed`): so what differs is what the client has given up
  (`unlisted_stays`).
"""

from __future__ import annotations

from tests.sim.rules import (
    admission,
    clients,
    coordinator,
    copies,
    differences,
    drains,
    groups,
    heirs,
    journal,
    leads,
    lives,
    modes,
    on_behalf,
    owners,
    renewals,
    restarts,
    rights,
    stores,
)
from tests.sim.rules.switches import DRILLS, HALVES, MUTANTS, applied, half_applied

__all__ = ["DRILLS", "HALVES", "MODEL_SWITCHES", "MUTANTS", "applied", "half_applied"]

MODEL_SWITCHES = {
    "no_backup_lease": "no_backup_lease",
    "no_coord_lease": "no_coordinator_lease",
    "no_wait": "no_wait",
    "learner_late": "learner_late",
    "inactive_sync": "inactive_sync",
    "no_ttl_cap": "no_ttl_cap",
    "ack_early": "ack_early",
    "peer_ack_newer": "peer_ack_newer",
    "peer_ack_older": "peer_ack_older",
    "coord_ack_newer": "coordinator_ack_newer",
    "no_drift": "no_drift",
    "lease_from_ack": "lease_from_ack",
    "client_from_resp": "client_from_response",
    "no_confirm": "no_confirm",
    "no_bump": "no_bump",
    "ack_condemned": "ack_deposed",
    "no_restart_wait": "no_restart_wait",
    "no_slot_wait": "no_slot_wait",
    "no_tenure": "no_tenure",
    "inc_blind": "incarnation_blind",
    "restart_empty": "restart_empty",
    "session_only": "session_only",
    "grant_by_session": "grant_by_session",
    "rel_by_key": "release_by_key",
    "copy_expires": "copy_expires",
    "no_ttl_restart": "no_ttl_restart",
    "revive": "revive",
    "gap_ok": "gap_ok",
    "orig_gen": "orig_gen",
    "orig_swap": "orig_swap",
    "stale_now": "stale_now",
    "order_gen_seq": "order_gen_seq",
    "snap_any": "snap_any",
    "wipe_noquar": "wipe_no_wait",
}
"""The switches of the protocol's executable model, and the mutants that are the same here."""

FILES = (
    rights,
    copies,
    differences,
    coordinator,
    restarts,
    admission,
    drains,
    stores,
    journal,
    lives,
    heirs,
    leads,
    renewals,
    clients,
    on_behalf,
    owners,
    modes,
    groups,
)
"""Where the rules are, by what they are about."""
