"""A cluster at one moment: its members with their load, its slots, and whether all is well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from zlib import crc32

from lockring.cluster_state import ClusterState
from lockring.ids import NodeId
from lockring.protocol import ServerStatus
from lockring.ring_picture import picture
from lockring.slots import SLOTS
from lockring.views.words import count, duration

Health = Literal["ok", "warn", "bad"]
"""How something is: well, worth a look, or failing."""

COLOURS: Final = 12
"""Colours of members; reused if there are more of them."""

_NUMBER: Final = re.compile(r"[0-9]+$")


@dataclass(frozen=True, slots=True)
class MemberReport:
    """The answer of a member about itself.

    Attributes:
        status: its status; None if it did not answer.
        answered_s: how long the answer took, in seconds.
        problem: why there is none, as a sentence.
    """

    status: ServerStatus | None = None
    answered_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member of the cluster.

    Attributes:
        node: its id.
        letter: its sign on the ring.
        colour: the number of its colour, below `COLOURS`.
        incarnation: the number of its life.
        address: HOST:PORT of its lock port.
        weight: its share of slots relative to the others.
        condition: "joining", "active" or "draining".
        primary_slots: slots that it is primary of.
        share: the same as a fraction of all slots, 0 to 1.
        backup_slots: slots that it is backup of.
        health: see `Health`.
        problem: why it is not "ok", as a sentence; "" if it is.
        answered_s: how long it took to answer, in seconds; None if it did not answer. So for what follows.
        serving_slots: slots that it may serve at this moment.
        locks: locks that are held or waited for there.
        waiters: requests that wait there.
        sessions: sessions of clients there.
        lease_left_s: what is left of the coordinator's lease, in seconds.
        away_s: how long it has been out of touch with the coordinator, in seconds; None while it is in touch.
        durability: how it keeps locks.
        build: which build of lockring it runs.
    """

    node: str
    letter: str
    colour: int
    incarnation: int
    address: str
    weight: int
    condition: str
    primary_slots: int
    share: float
    backup_slots: int
    health: Health
    problem: str = ""
    answered_s: float | None = None
    serving_slots: int | None = None
    locks: int | None = None
    waiters: int | None = None
    sessions: int | None = None
    lease_left_s: float | None = None
    away_s: float | None = None
    durability: str | None = None
    build: str | None = None


@dataclass(frozen=True, slots=True)
class MoveView:
    """Slots that are on their way: a member catches up with another's slots, to become their backup or primary.

    Attributes:
        source: the node that has them.
        target: the node that catches up.
        slots: how many.
    """

    source: str
    target: str
    slots: int


@dataclass(frozen=True, slots=True)
class ClusterView:
    """A cluster at one moment.

    Attributes:
        cluster: its id.
        version: of its state.
        coordinator: HOST:PORT of the coordinator that leads.
        replication: "sync" or "async".
        health: see `Health`.
        summary: how it is, as a sentence.
        remarks: what is wrong or under way, as sentences.
        members: in the natural order of their ids.
        moves: slots on their way.
        slots: how many there are.
        vacant_slots: those without a primary.
        single_slots: those with a primary and no backup.
        moving_slots: those with a copy that is catching up.
        locks: locks that are held or waited for, at the members that answered. So for the next two.
        waiters: requests that wait.
        sessions: sessions; one that uses several members counts at each.
    """

    cluster: str
    version: int
    coordinator: str
    replication: str
    health: Health
    summary: str
    remarks: list[str]
    members: list[MemberView]
    moves: list[MoveView]
    slots: int
    vacant_slots: int
    single_slots: int
    moving_slots: int
    locks: int
    waiters: int
    sessions: int


def cluster_view(state: ClusterState, note: str, reports: Mapping[NodeId, MemberReport]) -> ClusterView:
    """Return a cluster as people look at it.

    Args:
        state: the cluster state.
        note: what the server that gave it is waiting for, "" for nothing.
        reports: the answers of members about themselves.
    """
    shown = picture(state, 64)
    colours = member_colours([row.node for row in shown.legend])
    members = []
    for row in shown.legend:
        report = reports.get(row.node, MemberReport(problem="it was not asked"))
        status = report.status
        health, problem = _health_of(report, row.condition)
        members.append(
            MemberView(
                node=row.node,
                letter=row.letter,
                colour=colours[row.node],
                incarnation=state.members[row.node].replica.incarnation,
                address=row.address,
                weight=row.weight,
                condition=row.condition,
                primary_slots=row.primary,
                share=row.share,
                backup_slots=row.backup,
                health=health,
                problem=problem,
                answered_s=None if status is None else report.answered_s,
                serving_slots=None if status is None else status.serving,
                locks=None if status is None else status.locks,
                waiters=None if status is None else status.waiters,
                sessions=None if status is None else status.sessions,
                lease_left_s=None if status is None else status.lease_left_ms / 1000,
                away_s=None if status is None or status.away_ms < 0 else status.away_ms / 1000,
                durability=None if status is None else status.durability,
                build=None if status is None else status.build,
            )
        )
    single = shown.single if len(state.members) > 1 else 0
    health = _worst(members, vacant=shown.vacant, single=single)
    remarks = _remarks(members, vacant=shown.vacant, single=single, moving=shown.moving)
    if note:
        remarks.append(note[0].upper() + note[1:] + ("" if note.endswith(".") else "."))
    return ClusterView(
        cluster=state.cluster,
        version=state.version,
        coordinator=state.coordinator,
        replication=state.replication,
        health=health,
        summary=_summary(members, vacant=shown.vacant, single=single, alone=len(state.members) == 1),
        remarks=remarks,
        members=members,
        moves=_moves(state),
        slots=SLOTS,
        vacant_slots=shown.vacant,
        single_slots=shown.single,
        moving_slots=shown.moving,
        locks=sum(each.locks or 0 for each in members),
        waiters=sum(each.waiters or 0 for each in members),
        sessions=sum(each.sessions or 0 for each in members),
    )


def member_colours(nodes: Sequence[str]) -> dict[str, int]:
    """Return a colour for each node: by the number in its id, so that it keeps it when others come and go."""
    taken: set[int] = set()
    colours: dict[str, int] = {}
    for node in nodes:
        number = _NUMBER.search(node)
        colour = (int(number[0][-6:]) - 1 if number else crc32(node.encode())) % COLOURS
        if len(taken) < COLOURS:
            while colour in taken:
                colour = (colour + 1) % COLOURS
        taken.add(colour)
        colours[node] = colour
    return colours


def _health_of(report: MemberReport, condition: str) -> tuple[Health, str]:
    status = report.status
    if status is None:
        return "bad", report.problem
    if status.journal_trouble:
        return "bad", status.journal_trouble
    if status.lease_left_ms <= 0:
        return "bad", "it has no lease of the coordinator, so it serves nothing"
    if status.away_ms >= 0:
        away, left = duration(status.away_ms / 1000), duration(status.lease_left_ms / 1000)
        return (
            "warn",
            f"it has been out of touch with the coordinator for {away}; it can serve for {left} more",
        )
    if status.serving < status.primary:
        missing = count(status.primary - status.serving, "slot")
        return "warn", f"{missing} of its {status.primary} are not served yet"
    if condition != "active":
        return "warn", f"it is {condition}"
    return "ok", ""


def _worst(members: list[MemberView], *, vacant: int, single: int) -> Health:
    if vacant or not members or any(each.health == "bad" for each in members):
        return "bad"
    return "warn" if single or any(each.health == "warn" for each in members) else "ok"


def _summary(members: list[MemberView], *, vacant: int, single: int, alone: bool) -> str:
    if not members:
        return "There are no members yet."
    if vacant:
        return f"{count(vacant, 'slot')} without a primary: their locks cannot be acquired."
    failing = [each.node for each in members if each.health == "bad"]
    if failing:
        return f"{', '.join(failing)} {'needs' if len(failing) == 1 else 'need'} a look."
    if single:
        return "Every slot is served; some have no backup."
    if alone:
        return "Every slot is served, by one node."
    if any(each.health == "warn" for each in members):
        return "Every slot is served and has a backup; a change is under way."
    return "Every slot is served and has a backup."


def _remarks(members: list[MemberView], *, vacant: int, single: int, moving: int) -> list[str]:
    remarks = [f"{each.node}: {each.problem}." for each in members if each.problem]
    if vacant:
        remarks.append(f"{count(vacant, 'slot')} without a primary.")
    if single:
        remarks.append(f"{count(single, 'slot')} without a backup.")
    if moving:
        remarks.append(f"{count(moving, 'slot')} being copied.")
    return remarks


def _moves(state: ClusterState) -> list[MoveView]:
    found: dict[tuple[str, str], int] = {}
    for slot in state.slots:
        if slot.learner is not None and slot.primary is not None:
            pair = slot.primary.node, slot.learner.replica.node
            found[pair] = found.get(pair, 0) + 1
    return [MoveView(source, target, slots) for (source, target), slots in sorted(found.items())]
