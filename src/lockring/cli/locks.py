"""`lockring ls`, `describe`, `watch` and `break`: inspecting locks, and ending a grant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import click
import msgspec

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect, connect_aio, demand_whole
from lockring.cli.layout import Column
from lockring.cli.output import clock_time, count, duration, print_json, print_table, quoted, say, token
from lockring.cli.sections import read_settings
from lockring.client.searching import PAGE_LIMIT_MAX
from lockring.cluster_state import GENERATION_MAX
from lockring.config import setting
from lockring.errors import InvalidRequest
from lockring.names import check_lock_name
from lockring.terminals import shell_word, shown

if TYPE_CHECKING:
    from lockring import Client, FoundLock, LockInfo, LockPage, WatchUpdate
    from lockring.cluster_state import ClusterState

_COLUMNS: Final = (
    Column("NAME", least=8),
    Column("OWNER", least=8, leaves=6),
    Column("MODE", leaves=5),
    Column("TOKEN", True),
    Column("HELD FOR", True, leaves=2),
    Column("TTL LEFT", True, leaves=4),
    Column("WAITERS", True, leaves=3),
    Column("PRIMARY", leaves=1),
)


class LsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring ls`."""

    limit: Annotated[
        int,
        setting(
            "At most this many locks, the first by name; 0 for all.", minimum=0, variable=False, file=False
        ),
    ] = 0
    after: Annotated[str, setting("Only names behind this one.", variable=False, file=False)] = ""
    text: Annotated[str, setting("Only names with this text in them.", variable=False, file=False)] = ""
    owner: Annotated[
        str,
        setting("Only locks whose holder or waiter has this text in its label.", variable=False, file=False),
    ] = ""
    mode: Annotated[
        Literal["exclusive", "shared", "semaphore"] | None,
        setting("Only locks held in this mode.", variable=False, file=False),
    ] = None
    held: Annotated[bool, setting("Only locks with a holder.", variable=False, file=False)] = False
    waiting: Annotated[bool, setting("Only locks with a waiter.", variable=False, file=False)] = False


class BreakSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring break`."""

    token: Annotated[
        int,
        setting(
            "The fencing token of the holder to end; lockring describe shows it.",
            minimum=1,
            maximum=GENERATION_MAX,
            variable=False,
            file=False,
        ),
    ]
    force: Annotated[
        bool,
        setting("Free the lock at once, though its holder may not yet know.", variable=False, file=False),
    ] = False


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring watch`."""

    prefix: Annotated[
        str,
        setting("Follow all locks in use whose name starts with this.", variable=False, file=False),
    ] = ""


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


@click.command()
@click.argument("prefix", default="")
@client_options(LsSettings)
def ls(prefix: str, as_json: bool, **given: Any) -> None:
    """List the locks that are held or waited for, optionally those whose name starts with PREFIX.

    With --limit or another choice, the nodes search, and send the first locks by name that are wanted: that is quick
    even if there are a million locks. A line on standard error then says how many there are in all, and where the
    next ones begin. Of each lock only the first eight holders and waiters are shown.

    If no node serves some slots at present, their locks are missing: a line on standard error says so, and the exit
    code is 69. If no slot is served at all, only the error is printed.
    """
    if prefix:
        check_lock_name(prefix)
    from lockring import FoundLock  # loads the client, which `lockring --help` does without

    settings = read_settings(LsSettings, "ls", given)
    cluster = client_settings(given)
    with connect(cluster) as client:
        if settings == LsSettings():
            every = client.locks(prefix, timeout=cluster.connect_timeout_s)
            locks = [FoundLock(each, len(each.holders), len(each.waiters)) for each in every]
            unserved, rest = every.unserved_slots, ""
        else:
            found = _searched(client, prefix, settings, cluster.connect_timeout_s)
            locks, unserved, rest = list(found), found.unserved_slots, _rest_of(found)
    if as_json:
        print_json([_found_facts(each, is_cut=settings != LsSettings()) for each in locks])
    else:
        which = f" whose name starts with {quoted(prefix)}" if prefix else ""
        is_searched = settings != LsSettings(limit=settings.limit)
        _print_locks(
            locks, f"no lock{which} is {'found by this search' if is_searched else 'held or waited for'}"
        )
    if rest:
        click.echo(rest, err=True)
    demand_whole(unserved)


def _searched(client: Client, prefix: str, settings: LsSettings, timeout_s: float) -> LockPage:
    """Return the locks that the nodes find, in as many pages as it takes."""
    from lockring import LockPage

    wanted, after = settings.limit or sys.maxsize, settings.after
    locks: list[FoundLock] = []
    while True:
        page = client.find_locks(
            prefix,
            after=after,
            limit=min(wanted - len(locks), PAGE_LIMIT_MAX),
            text=settings.text,
            owner=settings.owner,
            mode=settings.mode,
            held=settings.held,
            waiting=settings.waiting,
            timeout=timeout_s,
        )
        locks += page
        if page.after is None or len(locks) >= wanted:
            return LockPage(locks, matched=page.matched, after=page.after, unserved_slots=page.unserved_slots)
        after = page.after


def _rest_of(page: LockPage) -> str:
    """Return a sentence on the locks that a page leaves out, "" if it leaves out none."""
    if page.after is None:
        return ""
    of_all = "" if page.matched is None else f" of {page.matched:,}"
    return f"{len(page):,}{of_all} locks are shown; the next ones: --after {shell_word(page.after)}"


def _found_facts(found: FoundLock, *, is_cut: bool) -> dict[str, Any]:
    """Return a lock as a JSON object; if a search has cut its holders and waiters, with the numbers of them all."""
    counts = {"holder_count": found.holder_count, "waiter_count": found.waiter_count}
    return facts(found.lock) | (counts if is_cut else {})


def _print_locks(locks: list[FoundLock], if_empty: str) -> None:
    rows: list[list[Any]] = []
    for found in locks:
        lock = found.lock
        if lock.holders:
            holder, others = lock.holders[0], found.holder_count - 1
            owner = holder.owner + (f" and {others} more" if others > 0 else "")
            times = [duration(holder.held_s), duration(holder.ttl_left_s)]
            row = [lock.name, owner, lock.mode, holder.fencing_token, *times]
        else:
            row = [lock.name, "-", "-", "-", "-", "-"]
        rows.append([*row, found.waiter_count, lock.primary])
    print_table(_COLUMNS, rows, if_empty=if_empty)


@click.command()
@click.argument("name")
@client_options()
def describe(name: str, as_json: bool, **given: Any) -> None:
    """Show one lock: its holders since when and with which tokens, its waiters, and the nodes that keep it."""
    check_lock_name(name)
    cluster = client_settings(given)
    with connect(cluster) as client:
        lock = client.describe(name, timeout=cluster.connect_timeout_s)
        found = facts(lock, client.state(timeout=cluster.connect_timeout_s))
    if as_json:
        print_json(found)
        return
    say(f"name     {shown(lock.name)}")
    if not lock.holders:
        last = lock.fencing_token_last
        say("held by  - (free" + (f"; tokens up to {last} are used)" if last else ")"))
    for holder in found["holders"]:
        say(f"held by  {shown(holder['owner'])}" + (" (shared)" if lock.mode == "shared" else ""))
        say(f"  since     {holder['since']} ({duration(holder['held_s'])} ago)")
        say(f"  TTL       {duration(holder['ttl_s'])}, {duration(holder['ttl_left_s'])} left")
        say(f"  token     {holder['fencing_token']}")
        if holder["host"]:
            gone = "" if holder["away_s"] is None else f", gone for {duration(holder['away_s'])}"
            say(f"  process   {holder['pid'] or '?'} on {shown(holder['host'])}{gone}")
        say(f"  session   {shown(holder['session'])}")
    say(f"waiters  {len(lock.waiters) or 'none'}")
    for position, waiter in enumerate(found["waiters"], start=1):
        shared = " (shared)" if waiter["mode"] == "shared" else ""
        say(f"  {position:3}.  {shown(waiter['owner'])}{shared}, for {duration(waiter['waited_s'])}")
    say(f"slot     {lock.slot}, primary {lock.primary}, backup {found['backup'] or 'none (not replicated)'}")


@click.command()
@click.argument("name", default="")
@client_options(WatchSettings)
def watch(name: str, as_json: bool, **given: Any) -> None:
    """Print a line, or with --json an object, now and after every change to a lock. Ctrl-C ends it.

    A line shows the lock as it is and what has happened since the line before: it was granted, released or lost
    (and why), or a client began to wait or gave up. If events may be missing, the line says that there was a gap.

    With --prefix instead of NAME, all locks in use with such a name are followed, and each line begins with the name.
    Each second the locks in use are listed, so that one which is held for a shorter time may be missed.
    """
    own = read_settings(WatchSettings, "watch", given)
    if bool(name) == bool(own.prefix):
        raise InvalidRequest("name a lock, or the start of the names of several with --prefix")
    check_lock_name(name or own.prefix)
    cluster = client_settings(given)

    def tell(update: WatchUpdate) -> None:
        if as_json:
            print_json({"at": clock_time(), **facts(update.lock), **news(update)})
        else:
            about = f"{shown(update.lock.name)}  " if own.prefix else ""
            say(f"{clock_time()}  {about}{summary(update.lock)}{told(update)}")

    if own.prefix:
        _watch_prefix(cluster, own.prefix, tell)
        return
    with connect(cluster) as client:
        for update in client.watch(name):
            tell(update)


def _watch_prefix(cluster: ClientSettings, prefix: str, tell: Callable[[WatchUpdate], None]) -> None:
    import asyncio

    from lockring.cli.watch_prefix import PrefixWatch

    async def follow() -> None:
        async with connect_aio(cluster) as client:
            await PrefixWatch(client, prefix, tell, timeout_s=cluster.connect_timeout_s).run()

    asyncio.run(follow())


def summary(lock: LockInfo) -> str:
    """Return a lock's holders and its number of waiters, in one line."""
    if lock.holders:
        shared = lock.mode == "shared"
        holders = ", ".join(
            f"{shown(each.owner)} ({token(each.fencing_token, shared)})" for each in lock.holders
        )
        text = f"held by {holders}"
    else:
        text = "free"
    return text + (f", {count(len(lock.waiters), 'waiter')}" if lock.waiters else "")


def news(update: WatchUpdate) -> dict[str, Any]:
    """Return what has happened to a watched lock, as a part of a JSON object."""
    events = [
        {
            "kind": each.kind,
            "owner": each.owner,
            "session": each.session,
            "fencing_token": each.fencing_token or None,
            "mode": "shared" if each.shared else "exclusive",
            "reason": each.reason or None,
        }
        for each in update.events
    ]
    return {"events": events, "gap": update.gap}


_TOLD: Final = {
    "waiting": "{who} waits",
    "granted": "granted to {who}",
    "released": "released by {who}",
    "lost": "lost by {who}: {reason}",
    "left": "{who} stopped waiting: {reason}",
    "gone": "{who} is gone",
}
"""Each kind of event, in words."""


def told(update: WatchUpdate) -> str:
    """Return what has happened to a watched lock, as the end of a line."""
    parts = []
    for each in update.events:
        who = shown(each.owner) + (f" (token {each.fencing_token})" if each.fencing_token else "")
        parts.append(_TOLD[each.kind].format(who=who, reason=each.reason))
    if update.gap:
        parts.insert(0, "gap: events may be missing")
    return f"  [{'; '.join(parts)}]" if parts else ""


@click.command("break")
@click.argument("name")
@client_options(BreakSettings)
def break_(name: str, as_json: bool, **given: Any) -> None:
    """End the lease of a lock's holder.

    The holder is notified, and its lease is no longer renewed: the lock is free once it lets go, or once its TTL has
    passed. With --force it is free at once, and for a moment two clients may believe that they hold it: only resources
    that check fencing tokens are safe then.
    """
    check_lock_name(name)
    settings = read_settings(BreakSettings, "break", given)
    cluster = client_settings(given)
    with connect(cluster) as client:
        broken = client.break_lock(
            name, settings.token, force=settings.force, timeout=cluster.connect_timeout_s
        )
    if as_json:
        freed = {"freed": broken.freed, "free_within_s": broken.free_within_s}
        print_json({"name": name, "fencing_token": settings.token, **freed})
    elif broken.freed:
        say(f"{quoted(name)} is free")
    else:
        say(
            f"{quoted(name)}: its holder is notified; free when it lets go, in {duration(broken.free_within_s)} at the latest"
        )
