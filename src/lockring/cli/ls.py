"""`lockring ls`: a list of locks.

Scripts call it again and again, and most of its time is its start. So it does without the options of other commands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import click
import msgspec

from lockring.cli.connect import client_options, client_settings, connect, demand_whole
from lockring.cli.layout import Column
from lockring.cli.lock_facts import facts
from lockring.cli.output import duration, print_json, print_table, quoted
from lockring.cli.sections import read_settings
from lockring.client.searching import PAGE_LIMIT_MAX
from lockring.config import setting
from lockring.names import check_lock_name
from lockring.terminals import shell_word

if TYPE_CHECKING:
    from lockring import Client, FoundLock, LockPage

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
