"""Values that a look at a cluster could have found."""

from __future__ import annotations

from typing import Any

from lockring.cli.top.model import CoordinatorView, LocksSlice, TopView
from lockring.views.cluster import ClusterView, MemberView, MoveView
from lockring.views.events import EventView
from lockring.views.locks import HolderView, LockRow, LockView, WaiterView

TOKEN = 1795975014854596
WIDE = "倉庫の鍵" * 8
HOSTILE = "evil\x1b[2J\r\n\x07\u202ename"


def member(node: str, **more: Any) -> MemberView:
    values: dict[str, Any] = {
        "letter": "A",
        "colour": 0,
        "incarnation": 1,
        "address": "10.0.0.1:9501",
        "weight": 1,
        "condition": "active",
        "primary_slots": 1365,
        "share": 0.33,
        "backup_slots": 1366,
        "health": "ok",
        "answered_s": 0.012,
        "serving_slots": 1365,
        "locks": 10,
        "waiters": 2,
        "sessions": 5,
        "lease_left_s": 29.0,
    }
    return MemberView(node=node, **(values | more))


def cluster(members: list[MemberView] | None = None, **more: Any) -> ClusterView:
    values: dict[str, Any] = {
        "cluster": "c",
        "version": 1795975015854596018,
        "coordinator": "10.0.0.9:9500",
        "replication": "sync",
        "health": "ok",
        "summary": "Every slot is served and has a backup.",
        "remarks": [],
        "members": [member("N1"), member("N2"), member("N3")] if members is None else members,
        "moves": [MoveView("N1", "N2", 34)],
        "slots": 4096,
        "vacant_slots": 0,
        "single_slots": 0,
        "moving_slots": 34,
        "locks": 30,
        "waiters": 6,
        "sessions": 15,
    }
    return ClusterView(**(values | more))


def row(name: str, *, waiters: int = 0, held_s: float = 3.0, wait_s: float = 2.0, **more: Any) -> LockRow:
    holder = HolderView("root@web-1:4711", "s1", TOKEN, held_s, 10.0, 7.0, 3.0)
    values: dict[str, Any] = {
        "mode": "exclusive",
        "holders": 1,
        "waiters": waiters,
        "holder": holder,
        "longest_wait_s": wait_s if waiters else None,
        "primary": "N1",
        "group": "",
    }
    return LockRow(name=name, **(values | more))


def queue(name: str, waiters: int = 3) -> LockView:
    return LockView(
        name=name,
        summary="Held by root@web-1:4711 for 3.0 s.",
        mode="exclusive",
        permits=1,
        slot=7,
        primary="N1",
        fencing_token_last=TOKEN,
        holder_count=1,
        holders=[HolderView("root@web-1:4711", "s1", TOKEN, 3.0, 10.0, 7.0, 3.0)],
        waiter_count=waiters,
        waiters=[
            WaiterView(place, f"waiter-{place}@web:1", "s2", "exclusive", 2.0)
            for place in range(1, waiters + 1)
        ],
        group="",
        events=[event("lock 'x' was lost", kind="lost", weight="bad")],
        commands=["lockring why x"],
    )


def event(text: str, *, kind: str = "joined", weight: str = "ok") -> EventView:
    return EventView("2026-11-29T18:00:00Z", 4.4, kind, weight, text, "", "N1", "N1")


COORDINATOR = CoordinatorView(
    "10.0.0.9:9500", answers=True, standbys=("10.0.0.8:9500",), store="SQLite (/var/lib/lockring)"
)


def top_view(**more: Any) -> TopView:
    rows = (row("jobs/7", waiters=2), row(WIDE), row(HOSTILE), *(row(f"jobs/x{each}") for each in range(60)))
    values: dict[str, Any] = {
        "cluster": cluster(),
        "coordinator": COORDINATOR,
        "locks": LocksSlice(rows, 1234, has_more=True),
        "events": tuple(event(f"node N{each} joined") for each in range(9)),
    }
    return TopView(**(values | more))
