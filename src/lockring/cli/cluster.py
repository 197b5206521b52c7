"""`lockring status`, `ring` and `drain`: looking at the cluster, and emptying a node."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import click
import msgspec

from lockring.cli.connect import ClientSettings, ask, client_options, client_settings
from lockring.cli.exits import NOT_ACQUIRED
from lockring.cli.layout import Column
from lockring.cli.options import read_settings
from lockring.cli.output import count, duration, print_json, print_table, say
from lockring.clock import wall_ns
from lockring.config import setting
from lockring.errors import InvalidRequest
from lockring.names import check_node_id
from lockring.net.ask import ServerView, ask_drain, ask_state
from lockring.ring.state import ClusterState, Copy, Replica
from lockring.terminals import takes_colour
from lockring.units import NS_PER_S

_LOOK_S: Final = 0.2

_COLUMNS: Final = (
    Column("NODE", least=8),
    Column("CONDITION"),
    Column("ADDRESS", leaves=4),
    Column("WEIGHT", True, leaves=2),
    Column("PRIMARY OF", True),
    Column("BACKUP OF", True, leaves=3),
    Column("LEARNING", True, leaves=1),
)


class DrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of `lockring drain`."""

    wait: Annotated[bool, setting("Wait until nothing is left on it.", variable=False, file=False)] = False
    timeout_s: Annotated[
        float | None,
        setting(
            f"With --wait: wait at most so long, then exit with {NOT_ACQUIRED}.",
            unit="seconds",
            minimum=0,
            variable=False,
            file=False,
        ),
    ] = None


def ask_view(server: str, timeout_s: float) -> ServerView:
    """What one server says of the cluster. Raises what `ask_state` does."""
    return ask_state(server, timeout_s=timeout_s)


def facts(state: ClusterState, note: str) -> dict[str, Any]:
    """The cluster as a JSON object. `version` is text: it is larger than what JSON readers keep exactly."""
    primaries: Counter[str] = Counter()
    backups: Counter[str] = Counter()
    learners: Counter[str] = Counter()
    moves: Counter[tuple[str | None, str]] = Counter()
    unserved = unreplicated = 0
    for slot in state.slots:
        primary, backup = _living(state, slot.primary), _living(state, _replica(slot.backup))
        if primary is None:
            unserved += 1
        else:
            primaries[primary] += 1
            unreplicated += backup is None
        if backup is not None:
            backups[backup] += 1
        if slot.learner is not None:
            learners[slot.learner.replica.node] += 1
            moves[primary, slot.learner.replica.node] += 1
    members = [
        {
            "id": node,
            "incarnation": member.replica.incarnation,
            "condition": member.condition,
            "address": member.address,
            "weight": member.weight,
            "slots_primary": primaries[node],
            "slots_backup": backups[node],
            "slots_learner": learners[node],
        }
        for node, member in sorted(state.members.items())
    ]
    return {
        "cluster": state.cluster,
        "version": str(state.version),
        "version_at": datetime.fromtimestamp(state.version / NS_PER_S, UTC).isoformat(
            timespec="milliseconds"
        ),
        "version_age_s": round((wall_ns() - state.version) / NS_PER_S, 3),
        "coordinator": state.coordinator,
        "term": state.term,
        "replication": state.replication,
        "backup_lease_s": state.backup_lease_ms / 1000,
        "coordinator_lease_s": state.coordinator_lease_ms / 1000,
        "slots": len(state.slots),
        "slots_without_primary": unserved,
        "slots_without_backup": unreplicated,
        "slots_moving": sum(moves.values()),
        "moves": [
            {"from": source, "to": to, "slots": slots}
            for (source, to), slots in sorted(moves.items(), key=str)
        ],
        "members": members,
        "note": note or None,
    }


def _living(state: ClusterState, replica: Replica | None) -> str | None:
    """The node whose present life this is; an earlier one of the same node serves nothing and has nothing."""
    return replica.node if replica is not None and state.is_current(replica) else None


def _replica(copy: Copy | None) -> Replica | None:
    return None if copy is None else copy.replica


@click.command()
@client_options()
def status(as_json: bool, **given: Any) -> None:
    """Show the cluster: its members, how the slots are spread over them, and what is being moved."""
    view = ask(client_settings(given), ask_view)
    found = facts(view.state, view.note)
    if as_json:
        print_json(found)
        return
    print_table(
        _COLUMNS,
        [
            [each[key] for key in ("id", "condition", "address", "weight")]
            + [each[key] for key in ("slots_primary", "slots_backup", "slots_learner")]
            for each in found["members"]
        ],
    )
    for line in _sentences(found):
        say(line)


def _sentences(found: dict[str, Any]) -> list[str]:
    lines = []
    unserved, unreplicated = found["slots_without_primary"], found["slots_without_backup"]
    if not found["members"]:
        lines.append("no node has joined yet")
    elif unserved:
        lines.append(
            f"{count(unserved, 'slot')} of {found['slots']} without a primary: their locks have to wait, until"
            f" another node takes over or the last lease of before is over (coordinator lease, below)"
        )
    if unreplicated:
        lines.append(
            f"{count(unreplicated, 'slot')} without a backup: a crash of the primary would lose their locks"
        )
    lines += [
        f"moving {count(each['slots'], 'slot')} from {each['from']} to {each['to']}"
        for each in found["moves"]
    ]
    if found["members"] and not lines:
        lines.append(f"all {found['slots']} slots have a primary and a backup")
    if found["version"] == "0":
        lines.append(f"coordinator {found['coordinator'] or 'unknown'}; there is no state yet")
    else:
        age = duration(found["version_age_s"])
        lines.append(
            f"coordinator {found['coordinator']}, cluster {found['cluster']}, version of {found['version_at']} ({age} ago)"
        )
    lines.append(
        f"{found['replication']} replication, backup lease {duration(found['backup_lease_s'])}, "
        f"coordinator lease {duration(found['coordinator_lease_s'])}"
    )
    if found["note"]:
        lines.append(f"note: {found['note']}")
    return lines


@click.command()
@client_options()
def ring(as_json: bool, **given: Any) -> None:
    """Draw the ring: which node has which part of the circle."""
    state = ask(client_settings(given), ask_view).state
    if as_json:
        print_json(
            {
                "version": str(state.version),
                "slots": [
                    {
                        "slot": number,
                        "primary": _living(state, slot.primary),
                        "backup": _living(state, _replica(slot.backup)),
                        "learner": _living(state, _replica(slot.learner)),
                    }
                    for number, slot in enumerate(state.slots)
                ],
            }
        )
        return
    from lockring.ring.picture import draw

    width = shutil.get_terminal_size().columns
    print(draw(state, width=width, colour=takes_colour(sys.stdout)))


@click.command()
@click.argument("node")
@client_options(DrainSettings)
def drain(node: str, as_json: bool, **given: Any) -> int:
    """Move everything off a node. Its locks stay held; it gets no new slots and can then be stopped."""
    check_node_id(node)
    settings = read_settings(DrainSettings, "drain", given)
    wait = settings.wait
    if settings.timeout_s is not None and not wait:
        raise InvalidRequest("--timeout says how long --wait waits: give both")
    end_s = None if settings.timeout_s is None else time.monotonic() + settings.timeout_s
    cluster = client_settings(given)
    ask(cluster, lambda server, timeout_s: ask_drain(server, node, timeout_s=timeout_s))
    left = _slots_left(node, cluster)
    told = None
    while wait and left.any and (end_s is None or time.monotonic() < end_s):
        if left != told and not as_json:
            print(left.sentence(node), flush=True)
            told = left
        time.sleep(_LOOK_S)
        left = _slots_left(node, cluster)
    if as_json:
        print_json(
            {"node": node, "drained": not left.any, "slots_primary": left.primary, "slots_copy": left.copy}
        )
    elif left.any:
        print(f"{node} is draining: {left.sentence(node)}; see lockring status")
    else:
        print(f"{node} is drained: it can be stopped")
    return NOT_ACQUIRED if wait and left.any else 0


class _Left(NamedTuple):
    """What a node still has: slots that it serves, and slots of which it keeps a copy."""

    primary: int
    copy: int

    @property
    def any(self) -> bool:
        return bool(self.primary or self.copy)

    def sentence(self, node: str) -> str:
        if self.primary:
            return f"{node} still serves {count(self.primary, 'slot')} and has a copy of {self.copy}"
        return (
            f"{node} serves nothing, and has a copy of {count(self.copy, 'slot')} until another node has one"
        )


def _slots_left(node: str, cluster: ClientSettings) -> _Left:
    state = ask(cluster, ask_view).state
    primary = copy = 0
    for slot in state.slots:
        primary += slot.primary is not None and slot.primary.node == node
        copy += any(each is not None and each.replica.node == node for each in (slot.backup, slot.learner))
    return _Left(primary, copy)
