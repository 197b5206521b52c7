"""`lockring describe`, `watch` and `break`: inspecting a lock, and ending a grant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
import msgspec

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect, connect_aio
from lockring.cli.lock_facts import facts
from lockring.cli.output import clock_time, count, duration, print_json, quoted, say, token
from lockring.cli.sections import read_settings
from lockring.cluster_state import GENERATION_MAX
from lockring.config import setting
from lockring.errors import InvalidRequest
from lockring.names import check_lock_name
from lockring.terminals import shown

if TYPE_CHECKING:
    from lockring import LockInfo, WatchUpdate


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
