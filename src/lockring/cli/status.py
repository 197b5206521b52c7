"""`lockring status`: the members, the slots, and whether they are served, as the servers themselves report it."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Final, NamedTuple

import click
import msgspec

from lockring.cli.certificates import certificate_facts
from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import ask, client_options, client_settings, dial_of
from lockring.cli.health import Health, ServerAnswer, diagnose, own_status
from lockring.cli.layout import Column
from lockring.cli.output import count, duration, print_json, print_table, say
from lockring.cli.rights import insecure_line, rights_line
from lockring.cli.sections import read_settings
from lockring.clock import wall_ns
from lockring.cluster_state import ClusterState, Copy, Replica
from lockring.config import setting
from lockring.errors import LockringError
from lockring.exits import FAILED, OK, UNAVAILABLE
from lockring.ids import NO_CLUSTER, ClusterId, NodeId
from lockring.net.oneshot import Dial, ServerReport, ask_report, ask_state
from lockring.protocol import ServerStatus
from lockring.slots import SLOTS
from lockring.units import NS_PER_S

_ANSWER_S_MAX: Final = 2.0
"""How long each server may take to answer; all are asked at the same time."""

_ASKED_AT_ONCE_MAX: Final = 32
_LOOK_AGAIN_S: Final = 0.3
"""During a planned move, a slot has no primary for a moment: a second look then finds it."""


class Look(NamedTuple):
    """The result of one look at a cluster.

    Attributes:
        state: the newest cluster state of any server.
        note: what the server that had it waits for.
        nodes: each member's answer.
        coordinator: the coordinator's answer.
        standby: the answer of a coordinator that stands by, where the other one does not answer.
        health: the verdict.
        strangers: the named servers that belong to other clusters.
    """

    state: ClusterState
    note: str
    nodes: Mapping[NodeId, ServerAnswer]
    coordinator: ServerAnswer
    standby: ServerStatus | None
    health: Health
    strangers: Mapping[str, ClusterId]

    @property
    def spokesman(self) -> ServerStatus | None:
        """The answer of the coordinator, or else of one that stands by."""
        return self.coordinator.status or self.standby


class StatusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring status`."""

    check: Annotated[
        bool,
        setting(
            "Print one line, and exit with 1 if anything is wrong: for monitoring.",
            variable=False,
            file=False,
        ),
    ] = False


@click.command()
@client_options(StatusSettings)
def status(as_json: bool, **given: Any) -> int:
    """Show whether the cluster serves, its members, the spread of the slots, what is moving, and the coordinators.

    Asks every node whether it may serve. Exits with 69 if slots are not served, or if the servers that are named belong
    to several clusters.
    """
    own = read_settings(StatusSettings, "status", given)
    settings = client_settings(given)
    if own.check and not as_json:
        return _check(settings)
    look = look_twice(settings)
    found = facts(look)
    if as_json:
        print_json(found)
    else:
        _print(found, look.health)
    if own.check:
        return FAILED if faults(look) else OK
    return OK if look.health.slots_served >= SLOTS and not look.strangers else UNAVAILABLE


def faults(look: Look) -> list[str]:
    """Return sentences on all that is wrong with a cluster. That one node alone has no backups is not wrong."""
    health = look.health
    expected = health.single if len(look.state.members) == 1 else ""
    found = [each for each in (*health.reasons, *health.remarks) if each != expected]
    return found or ([] if health.slots_served >= SLOTS else [health.heading])


def _check(settings: ClientSettings) -> int:
    """Print one line as monitoring takes it, with figures behind a bar, and return the exit code."""
    try:
        look = look_twice(settings)
    except LockringError as error:
        say_line(f"LOCKRING CRITICAL - {error}")
        return FAILED
    found, health = facts(look), look.health
    wrong = faults(look)
    word = "OK" if not wrong else "WARNING" if health.slots_served >= SLOTS else "CRITICAL"
    text = (
        "; ".join(wrong)
        or f"{health.slots_served} of {SLOTS} slots served by {count(len(found['members']), 'node')}"
    )
    figures = {
        "slots_served": health.slots_served,
        "slots_without_backup": found["slots_without_backup"],
        "slots_moving": found["slots_moving"],
        "members": len(found["members"]),
        "locks": sum(each["locks"] or 0 for each in found["members"]),
        "waiters": sum(each["waiters"] or 0 for each in found["members"]),
    }
    say_line(f"LOCKRING {word} - {text} | " + " ".join(f"{name}={value}" for name, value in figures.items()))
    return FAILED if wrong else OK


def say_line(text: str) -> None:
    """Print a text as one line, however wide the terminal is, without a bar but for the last one."""
    head, bar, figures = text.rpartition(" | ")
    words = (head if bar else figures).replace("|", "/")
    print(" ".join(words.split()) + (f"{bar}{figures}" if bar else ""), flush=True)


def look_twice(settings: ClientSettings) -> Look:
    """Look at a cluster, and again if it serves only in part: a planned move may have been under way.

    Raises:
        LockringError: no server tells the state.
    """
    look = look_at(settings)
    if look.health.condition == "partial":
        time.sleep(_LOOK_AGAIN_S)
        look = look_at(settings)
    return look


def look_at(settings: ClientSettings) -> Look:
    """Ask a server for the state of the cluster, and then all servers for their status. Raises as `look_twice`."""
    credential = settings.credential()
    question = functools.partial(_ask_state, credential=credential)
    server, (state, note) = ask(settings, question)
    timeout_s = min(_ANSWER_S_MAX, settings.connect_timeout_s)
    dial = dial_of(settings)
    coordinator, nodes = _ask_all(state, dial, server, timeout_s, credential=credential)
    versions = {node: answer.status.version for node, answer in nodes.items() if answer.status is not None}
    newest = max(versions, key=versions.__getitem__, default=None)
    if newest is not None and versions[newest] > state.version:
        # The queried server is behind, perhaps cut off from the coordinator. The other one may have ended since it
        # answered: then the older state is all there is.
        with suppress(LockringError):
            server, (state, note) = question(dial, state.members[newest].address, timeout_s)
            coordinator, nodes = _ask_all(state, dial, server, timeout_s, credential=credential)
    others = _ask_others(state, settings, dial, timeout_s, credential=credential)
    standby = None if coordinator.status is not None else _standby(state, others)
    own = (NO_CLUSTER, state.cluster)
    strangers = {server: cluster for server, (cluster, _) in others.items() if cluster not in own}
    health = diagnose(state, nodes, coordinator, standby=standby, strangers=strangers, wall_ns=wall_ns())
    return Look(state, note, nodes, coordinator, standby=standby, health=health, strangers=strangers)


def _ask_state(
    dial: Dial, server: str, timeout_s: float, *, credential: str
) -> tuple[str, tuple[ClusterState, str]]:
    view = ask_state(server, timeout_s=timeout_s, dial=dial, credential=credential)
    return server, (view.state, view.note)


def _ask_all(
    state: ClusterState, dial: Dial, server: str, timeout_s: float, *, credential: str
) -> tuple[ServerAnswer, dict[NodeId, ServerAnswer]]:
    """Ask the coordinator and every member for their status, all at the same time."""
    where = {node: member.address for node, member in state.members.items()}
    addresses = [state.coordinator or server, *where.values()]

    def answer_of(address: str) -> ServerAnswer:
        try:
            cluster, status = ask_report(address, timeout_s=timeout_s, dial=dial, credential=credential)
        except LockringError as error:
            return ServerAnswer(None, str(error).removeprefix(f"{address} "))
        if cluster not in (NO_CLUSTER, state.cluster):
            return ServerAnswer(None, f"a server of another cluster, {cluster}, answers there")
        return ServerAnswer(status)

    with ThreadPoolExecutor(min(_ASKED_AT_ONCE_MAX, len(addresses))) as pool:
        coordinator, *nodes = pool.map(answer_of, addresses)
    if coordinator.status is not None and coordinator.status.role != "coordinator":
        coordinator = ServerAnswer(None, "a node answers there")
    return coordinator, dict(zip(where, nodes, strict=True))


def _ask_others(
    state: ClusterState, settings: ClientSettings, dial: Dial, timeout_s: float, *, credential: str
) -> dict[str, ServerReport]:
    """Ask the named servers that are no members, all at the same time, and return those that answer."""
    members = {member.address for member in state.members.values()}
    others = [each for each in settings.addresses if each not in members]

    def report_of(address: str) -> ServerReport | None:
        with suppress(LockringError):
            return ask_report(address, timeout_s=timeout_s, dial=dial, credential=credential)
        return None

    if not others:
        return {}
    with ThreadPoolExecutor(min(_ASKED_AT_ONCE_MAX, len(others))) as pool:
        reports = zip(others, pool.map(report_of, others), strict=True)
        return {server: report for server, report in reports if report is not None}


def _standby(state: ClusterState, others: Mapping[str, ServerReport]) -> ServerStatus | None:
    """Return the status of a coordinator of this cluster that is not the one in its state, None if there is none."""
    for server, (cluster, status) in others.items():
        if (
            status.role == "coordinator"
            and server != state.coordinator
            and cluster in (NO_CLUSTER, state.cluster)
        ):
            return status
    return None


def facts(look: Look) -> dict[str, Any]:
    """Return the cluster as a JSON object. `version` is text: JSON readers do not keep such large numbers exactly."""
    state, health = look.state, look.health
    primaries: Counter[str] = Counter()
    backups: Counter[str] = Counter()
    learners: Counter[str] = Counter()
    moves: Counter[tuple[str | None, str]] = Counter()
    unserved = unreplicated = 0
    for slot in state.slots:
        primary, backup = living(state, slot.primary), living(state, replica_of(slot.backup))
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
    members = []
    for node, member in sorted(state.members.items()):
        answer = look.nodes[node]
        own = own_status(member, answer)
        members.append(
            {
                "id": node,
                "incarnation": member.replica.incarnation,
                "condition": member.condition,
                "address": member.address,
                "weight": member.weight,
                "slots_primary": primaries[node],
                "slots_backup": backups[node],
                "slots_learner": learners[node],
                "answers": own is not None,
                "problem": answer.trouble or (None if own is not None else "another life of it answers"),
                "slots_served": None if own is None else own.serving,
                "lease_left_s": None if own is None else own.lease_left_ms / 1000,
                "coordinator_away_s": None if own is None or own.away_ms < 0 else own.away_ms / 1000,
                "locks": None if own is None else own.locks,
                "waiters": None if own is None else own.waiters,
                "sessions": None if own is None else own.sessions,
                "durability": None if own is None else own.durability,
                "journal_problem": None if own is None else own.journal_trouble or None,
                "journal_problem_s": None
                if own is None or not own.journal_trouble
                else own.journal_trouble_ms / 1000,
                "build": None if own is None else own.build or None,
                "certificates": certificate_facts(own, wall_ns() / NS_PER_S),
                "auth": None if own is None else own.auth or None,
                "acl_edition": None if own is None else own.acl or None,
                "insecure": None if own is None else own.insecure,
            }
        )
    spokesman = look.spokesman
    note = look.note if look.coordinator.status is None else look.coordinator.status.note
    return {
        "serving": health.slots_served >= SLOTS,
        "health": health.condition,
        "not_serving_s": health.since_s,
        "reasons": health.reasons,
        "remarks": health.remarks,
        "cluster": state.cluster,
        "other_clusters": [{"server": each, "cluster": other} for each, other in look.strangers.items()],
        "version": str(state.version),
        "version_at": datetime.fromtimestamp(state.version / NS_PER_S, UTC).isoformat(
            timespec="milliseconds"
        ),
        # A version is ahead of the clock while it keeps above the tokens that are reserved.
        "version_age_s": max(0.0, round((wall_ns() - state.version) / NS_PER_S, 3)),
        "coordinator": state.coordinator,
        "coordinator_answers": look.coordinator.status is not None,
        "coordinator_certificates": certificate_facts(spokesman, wall_ns() / NS_PER_S),
        "coordinator_auth": None if spokesman is None else spokesman.auth or None,
        "coordinator_acl_edition": None if spokesman is None else spokesman.acl or None,
        "coordinator_insecure": None if spokesman is None else spokesman.insecure,
        "leader": None if spokesman is None else spokesman.leader or None,
        "standbys": [] if spokesman is None else spokesman.standbys,
        "store": None if spokesman is None or not spokesman.store else store_of(spokesman),
        "lease_left_s": health.lease_left_s,
        "term": state.term,
        "replication": state.replication,
        "backup_lease_s": state.backup_lease_ms / 1000,
        "coordinator_lease_s": state.coordinator_lease_ms / 1000,
        "slots": len(state.slots),
        "slots_served": health.slots_served,
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


def store_of(status: ServerStatus) -> dict[str, Any]:
    """Return what a coordinator says of its store, as a JSON object."""
    works = status.store_failing_ms < 0
    kind, _, place = status.store.partition(" (")
    return {
        "kind": kind,
        "place": place.removesuffix(")") or None,
        "works": works,
        "failing_s": None if works else status.store_failing_ms / 1000,
        "problem": None if works else status.store_problem,
    }


def living(state: ClusterState, replica: Replica | None) -> str | None:
    """Return the node whose present life this is; an earlier life serves nothing and has nothing."""
    return replica.node if replica is not None and state.is_current(replica) else None


def replica_of(copy: Copy | None) -> Replica | None:
    """Return the replica of a copy, None for none."""
    return None if copy is None else copy.replica


_COLUMNS: Final = (
    Column("NODE", least=8),
    Column("CONDITION"),
    Column("ADDRESS", leaves=5),
    Column("WEIGHT", True, leaves=3),
    Column("SERVES", True),
    Column("PRIMARY OF", True, leaves=6),
    Column("BACKUP OF", True, leaves=4),
    Column("LEARNING", True, leaves=1),
    Column("DURABILITY", leaves=2),
)


def _durability(member: dict[str, Any]) -> str:
    if member["journal_problem"]:
        return "failing"
    return member["durability"] or "?"


def _print(found: dict[str, Any], health: Health) -> None:
    print_table(
        _COLUMNS,
        [
            [each[key] for key in ("id", "condition", "address", "weight")]
            + ["?" if each["slots_served"] is None else each["slots_served"]]
            + [each[key] for key in ("slots_primary", "slots_backup", "slots_learner")]
            + [_durability(each)]
            for each in found["members"]
        ],
    )
    say(health.heading)
    for line in [*health.reasons, *health.remarks]:
        say(f"- {line}")
    for move in found["moves"]:
        say(f"moving {count(move['slots'], 'slot')} from {move['from']} to {move['to']}")
    if found["version"] == "0":
        say(f"coordinator {found['coordinator'] or 'unknown'}; there is no state yet")
    else:
        age = duration(found["version_age_s"])
        say(
            f"coordinator {found['coordinator']}, cluster {found['cluster']}, version of {found['version_at']} ({age} ago)"
        )
    _print_coordinators(found)
    say(
        f"{found['replication']} replication, backup lease {duration(found['backup_lease_s'])}, "
        f"coordinator lease {duration(found['coordinator_lease_s'])}"
    )
    builds = builds_line([each["build"] for each in found["members"]])
    if builds:
        say(builds)
    for line in filter(None, [rights_line(found), insecure_line(found)]):
        say(line)
    if found["note"] and not any(found["note"] in line for line in health.reasons):
        say(f"note: {found['note']}")


def builds_line(builds: Iterable[str | None]) -> str:
    """Return a line on the builds of lockring that nodes run, "" if none of them says so."""
    known = Counter(each for each in builds if each)
    runs = [f"{build} on {count(nodes, 'node')}" for build, nodes in sorted(known.items())]
    return f"lockring runs {', '.join(runs)}" if runs else ""


def _print_coordinators(found: dict[str, Any]) -> None:
    """Print which coordinators there are where several share a store, and whether the store works."""
    store = found["store"]
    if found["leader"]:
        standbys = ", ".join(found["standbys"])
        say(f"leader {found['leader']}, " + (f"standing by: {standbys}" if standbys else "none stands by"))
    elif found["standbys"]:
        say(f"no coordinator leads; standing by: {', '.join(found['standbys'])}")
    if store is not None:
        place = store["kind"] + ("" if store["place"] is None else f" ({store['place']})")
        state = "works" if store["works"] else f"has not worked for {duration(store['failing_s'])}"
        say(f"store {place}: {state}")
