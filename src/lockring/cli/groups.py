"""`lockring groups` and `lockring group`: looking at groups."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import click
import msgspec

from lockring.cli.connect import client_options, client_settings, connect, demand_whole
from lockring.cli.layout import Column
from lockring.cli.output import count, print_json, print_table, quoted, say
from lockring.cli.sections import read_settings
from lockring.client.group_state import GroupInfo
from lockring.config import setting
from lockring.names import lock_of_group
from lockring.terminals import shown


class GroupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring group`."""

    owner_of: Annotated[
        str | None,
        setting("Show the member that should own this key.", metavar="KEY", variable=False, file=False),
    ] = None


@click.command()
@client_options()
def groups(as_json: bool, **given: Any) -> None:
    """List the groups that have members."""
    cluster = client_settings(given)
    with connect(cluster) as client:
        found = client.groups(timeout=cluster.connect_timeout_s)
    if as_json:
        print_json([{"name": each.name, "members": each.members, "version": each.version} for each in found])
        demand_whole(found.unserved_slots)
        return
    rows = [[each.name, each.members, each.version] for each in found]
    columns = (Column("NAME", least=8), Column("MEMBERS", True, leaves=2), Column("VERSION", True, leaves=1))
    print_table(columns, rows, if_empty="no group has members")
    demand_whole(found.unserved_slots)


@click.command()
@click.argument("name")
@client_options(GroupSettings)
def group(name: str, as_json: bool, **given: Any) -> None:
    """Show one group: its members, their shares of the keys, and whether all have let go of the others' keys."""
    lock_of_group(name)
    settings = read_settings(GroupSettings, "group", given)
    cluster = client_settings(given)
    with connect(cluster) as client:
        info = client.group(name).describe(timeout=cluster.connect_timeout_s)
    if as_json:
        print_json(facts(info, settings.owner_of))
        return
    if not info.members:
        print(f"group {quoted(name)} has no members")
        return
    shares = info.shares()
    rows = [
        [each.id, each.weight, f"{100 * shares[each.id]:.1f} %", _state(info, each.id), each.owner]
        for each in info.members
    ]
    columns = (
        Column("MEMBER", least=12),
        Column("WEIGHT", True, leaves=1),
        Column("SHARE", True),
        Column("STATE"),
        Column("OWNER", least=12, leaves=2),
    )
    print_table(columns, rows)
    say(f"{count(len(info.members), 'member')}, version {info.version or 'not known yet'}, {summary(info)}")
    if settings.owner_of is not None:
        owner = info.owner(settings.owner_of)
        say(
            f"{quoted(settings.owner_of)} {'has no owner' if owner is None else f'belongs to {quoted(owner)}'}"
        )


def _state(info: GroupInfo, member: str) -> str:
    return "awaited" if member in info.awaited else "seen"


def summary(info: GroupInfo) -> str:
    """Return whether a group's version is settled, or the members that it waits for."""
    if info.settled:
        return "settled"
    named = ", ".join(shown(each) for each in info.awaited[:5])
    more = len(info.awaited) - 5
    return f"waits for {named}" + (f" and {more} more" if more > 0 else "")


def facts(info: GroupInfo, key: str | None = None) -> dict[str, Any]:
    """Return a group as a JSON object."""
    shares = info.shares()
    found: dict[str, Any] = {
        "name": info.name,
        "version": info.version,
        "settled": info.settled,
        "awaited": list(info.awaited),
        "members": [
            {
                "id": each.id,
                "weight": each.weight,
                "share": shares[each.id],
                "payload_base64": base64.b64encode(each.payload).decode(),
                "owner": each.owner,
                "fencing_token": each.fencing_token,
            }
            for each in info.members
        ],
    }
    if key is not None:
        found["key"], found["key_owner"] = key, info.owner(key)
    return found
