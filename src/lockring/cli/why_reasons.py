"""Why a lock is not granted: one sentence that is true of what the servers say, and what to do. No I/O.

The reasons are looked at in this order; the first that applies is the answer, and the others become remarks:

- the caller has no right to the lock;
- no node answers for it, and why;
- it is held: by a holder whose lease is broken, whose connection is gone, or that is silent; by readers before a
  writer; with waiters ahead; or just held;
- it is free: but its name may be mistyped, or its node is being drained.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from lockring.cli.output import count, duration, quoted, token
from lockring.cluster_state import ClusterState
from lockring.errors import Denied, LockringError, Unavailable
from lockring.net.server_line import AskersRights
from lockring.protocol import ServerStatus
from lockring.slots import checked_slot_of
from lockring.terminals import command, shown

if TYPE_CHECKING:
    from lockring import LockInfo
    from lockring.holders import Holder

Reason = Literal[
    "no-right",
    "no-primary",
    "leases",
    "no-coordinator",
    "journal",
    "unreachable",
    "unavailable",
    "broken",
    "holder-gone",
    "readers",
    "waiters",
    "held",
    "wrong-name",
    "draining",
    "free",
]
"""The word for a reason, as `--json` has it."""

_MISSED: Final = 0.6
"""A holder renews each third of its TTL. One that has not for this part of it has missed a time, or is about to."""


class LockEvidence(NamedTuple):
    """All that is known about a lock.

    Attributes:
        name: the lock.
        lock: as its primary describes it, None if that was not to be had.
        error: why not.
        rights: of the caller, as far as the node says them.
        state: the cluster state, None if the caller may not read it.
        primary: the status of the lock's node, None if it is not known.
        coordinator: "" if the coordinator answers or is not known, else why it does not.
        similar: names of locks in use that are like this one.
        is_search_whole: whether all names were looked at for that.
    """

    name: str
    lock: LockInfo | None = None
    error: LockringError | None = None
    rights: AskersRights = AskersRights()
    state: ClusterState | None = None
    primary: ServerStatus | None = None
    coordinator: str = ""
    similar: Sequence[str] = ()
    is_search_whole: bool = True


class Explanation(NamedTuple):
    """The answer.

    Attributes:
        reason: see `Reason`.
        sentence: for people.
        advice: what to do.
        remarks: sentences on what else is so.
    """

    reason: Reason
    sentence: str
    advice: str
    remarks: tuple[str, ...] = ()


def explain(found: LockEvidence) -> Explanation:
    """Return why a lock is not granted, or that it is free."""
    remarks = _about_servers(found)
    if isinstance(found.error, Denied):
        return Explanation(
            "no-right", f"{found.error}", _ask_for_right(found.error.right or "read", found.name), remarks
        )
    lock = found.lock
    if lock is None:
        return _of_outage(found)._replace(remarks=remarks)
    verbs, identity = found.rights
    if verbs is not None and "acquire" not in verbs:
        sentence = f"{identity} may not acquire {quoted(found.name)}, whether or not it is held"
        return Explanation(
            "no-right", sentence, _ask_for_right("acquire", found.name), (*_state_of(lock), *remarks)
        )
    draining = _draining(found)
    if lock.holders:
        remarks = (f"its node {draining}", *remarks) if draining else remarks
        return _of_held(lock)._replace(remarks=remarks)
    if lock.waiters:
        first = shown(lock.waiters[0].owner)
        sentence = f"{quoted(lock.name)} is free, and about to be granted to {first}, which waits for it"
        return Explanation("waiters", sentence, "look again", remarks)
    if found.similar:
        return _of_similar(found, remarks)
    if draining:
        sentence = f"{quoted(lock.name)} is free; its node {draining}"
        advice = (
            f"acquire it: that works during a drain too; {command('undrain', lock.primary)} ends the drain"
        )
        return Explanation("draining", sentence, advice, remarks)
    sentence = f"{quoted(lock.name)} is free: no client holds it or waits for it"
    return Explanation("free", sentence, "acquire it", remarks)


# ---------------------------------------------------------------------- held


def _of_held(lock: LockInfo) -> Explanation:
    first, name, ahead = lock.holders[0], quoted(lock.name), len(lock.waiters)
    by = _by(first)
    if len(lock.holders) > 1:
        by = f"{len(lock.holders)} clients, the first of them {by}"
    if all(each.broken for each in lock.holders):
        sentence = f"the lease of {by} on {name} was broken by an operator, so that it is free once its holder lets go"
        sentence += f", in {duration(_left_s(lock))} at the latest"
        return Explanation("broken", sentence, "wait: nothing renews the lease any more")
    if all(each.away_s is not None for each in lock.holders):
        gone = duration(min(each.away_s or 0.0 for each in lock.holders))
        sentence = f"{name} is still held by {by}, whose connection has been gone for {gone}: unless the holder comes back, it"
        sentence += f" is free once the lease ends, in {duration(_left_s(lock))}"
        return Explanation("holder-gone", sentence, _advice_on_gone(lock))
    if all(_is_silent(each) for each in lock.holders):
        sentence = f"{name} is still held by {by}, which was last heard {duration(first.renewed_s or 0.0)} ago: unless that"
        sentence += f" renews its lease, it is free in {duration(_left_s(lock))}"
        return Explanation("holder-gone", sentence, _advice_on_gone(lock))
    is_shared = lock.mode == "shared"
    if is_shared and ahead and lock.waiters[0].mode == "exclusive":
        writer = lock.waiters[0]
        readers = count(len(lock.holders), "reader")
        sentence = (
            f"{name} is held by {readers}, the first of them {_by(first)}, and the writer {shown(writer.owner)} has waited"
            f" for them for {duration(writer.waited_s)}: readers that come now wait behind it"
        )
        return Explanation("readers", sentence, _advice_on_held(lock))
    sentence = f"{name} is {'shared' if is_shared else 'held'} by {by}"
    if ahead:
        waiter = lock.waiters[0]
        verb = "waits" if ahead == 1 else "wait"
        sentence += (
            f", and {count(ahead, 'client')} {verb} for it before a new one, the first {shown(waiter.owner)}"
        )
        sentence += f" for {duration(waiter.waited_s)}"
        return Explanation("waiters", sentence, _advice_on_held(lock))
    return Explanation("held", sentence, _advice_on_held(lock))


def _by(holder: Holder) -> str:
    return f"{shown(holder.owner)} for {duration(holder.held_s)} ({token(holder.fencing_token, False)})"


def _left_s(lock: LockInfo) -> float:
    return max(each.ttl_left_s for each in lock.holders)


def _is_silent(holder: Holder) -> bool:
    return holder.renewed_s is not None and holder.renewed_s > _MISSED * holder.ttl_s


def _advice_on_held(lock: LockInfo) -> str:
    holder = lock.holders[0]
    where = (
        f"look at process {holder.pid} on {shown(holder.host)}"
        if holder.host and holder.pid
        else "ask its holder"
    )
    order = command("break", lock.name, options=("--token", str(holder.fencing_token)))
    return f"wait, or {where}; {order} ends its lease"


def _advice_on_gone(lock: LockInfo) -> str:
    order = command("break", lock.name, options=("--token", str(lock.holders[0].fencing_token), "--force"))
    return f"wait; {order} frees it at once, which is safe only if the holder's process is surely dead"


# ---------------------------------------------------------------------- no answer


def _of_outage(found: LockEvidence) -> Explanation:
    error = found.error
    assert error is not None
    name, text = quoted(found.name), str(error)
    slot = checked_slot_of(found.name)
    reason = error.reason if isinstance(error, Unavailable) else ""
    status = found.primary
    if reason == "no-coordinator" or (
        status is not None and status.lease_over_ms >= 0 and status.away_ms >= 0
    ):
        since = "" if status is None or status.away_ms < 0 else f" for {duration(status.away_ms / 1000)}"
        node = "the node that has it" if status is None else f"node {status.node}, which has it,"
        sentence = f"no client can acquire {name}: {node} has been without the coordinator{since}, and its lease is over"
        return Explanation("no-coordinator", sentence, "start the coordinator: see lockring status")
    vacant = None if found.state is None else found.state.slots[slot].primary
    has_primary = found.state is not None and vacant is not None and found.state.is_current(vacant)
    if reason == "leases":
        sentence = f"no client can acquire {name} yet: {text}"
        return Explanation("leases", sentence, "wait: locks that were held before may still be believed in")
    if reason == "no-primary" or (found.state is not None and not has_primary):
        sentence = f"no client can acquire {name}: no node serves slot {slot}, to which it belongs"
        advice = "wait for a node to take over, or start the nodes that are gone: see lockring status"
        return Explanation("no-primary", sentence, advice)
    if reason == "journal":
        return Explanation(
            "journal", f"no client can acquire {name}: {text}", "make room on the disk of that node"
        )
    if reason in ("unreachable", "silent"):
        sentence = f"nothing is known of {name}: {text}"
        return Explanation("unreachable", sentence, "see lockring status, and lockring doctor for each port")
    return Explanation("unavailable", f"no node answers for {name}: {text}", "see lockring status")


# ---------------------------------------------------------------------- free


def _of_similar(found: LockEvidence, remarks: tuple[str, ...]) -> Explanation:
    names = ", ".join(quoted(each) for each in found.similar[:3])
    are = "is in use, whose name is" if len(found.similar) == 1 else "are in use, whose names are"
    sentence = f"{quoted(found.name)} is free, and no client waits for it, but {names} {are} like it"
    return Explanation("wrong-name", sentence, f"check the name: {command('why', found.similar[0])}", remarks)


def _draining(found: LockEvidence) -> str:
    """Return that the lock's node is being drained, as the rest of a sentence about it; "" if it is not."""
    if found.lock is None or found.state is None:
        return ""
    node = found.lock.primary
    member = next((each for each in found.state.members.values() if each.replica.node == node), None)
    if member is None or member.condition != "draining":
        return ""
    left = sum(each.primary == member.replica for each in found.state.slots)
    return f"{node} is draining, with {count(left, 'slot')} still on it"


# ---------------------------------------------------------------------- remarks


def _about_servers(found: LockEvidence) -> tuple[str, ...]:
    remarks = []
    if found.coordinator:
        remark = f"the coordinator does not answer ({found.coordinator})"
        status = found.primary
        if status is not None and status.away_ms >= 0 and status.lease_left_ms > 0:
            remark += (
                f": node {status.node} serves for another {duration(status.lease_left_ms / 1000)} without it"
            )
        remarks.append(remark)
    if not found.similar and not found.is_search_whole:
        remarks.append("not all names of locks could be looked at for one that is similar")
    return tuple(remarks)


def _state_of(lock: LockInfo) -> tuple[str, ...]:
    return (_of_held(lock).sentence,) if lock.holders else ()


def _ask_for_right(right: str, name: str) -> str:
    return f'an operator may add the rule "{right} {shown(name)}" to a role in the ACL file: see lockring acl explain'
