"""`lockring why`: the reason for which a lock is not granted, in one sentence, and then in detail."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect, dial_of, roll_of
from lockring.cli.events import facts as facts_of_event
from lockring.cli.lock_facts import facts as facts_of_lock
from lockring.cli.output import clock_time, count, duration, print_json, quoted, say
from lockring.cli.why_reasons import Explanation, LockEvidence, explain
from lockring.cluster_state import ClusterState
from lockring.core.event_words import sentence_of
from lockring.core.merged_events import ServerEvent, merged
from lockring.core.similar_names import NamePattern
from lockring.errors import Denied, LockringError
from lockring.exits import OK, exit_code_of
from lockring.ids import LockName, NodeId, RequestNumber
from lockring.names import check_lock_name
from lockring.net.event_sources import EventSources
from lockring.net.oneshot import Dial, ask_report, ask_state
from lockring.net.server_line import AskersRights, Roll, ServerLine, ask_roll
from lockring.protocol import GetEvents, ServerStatus
from lockring.slots import checked_slot_of
from lockring.terminals import shown

if TYPE_CHECKING:
    from lockring import LockInfo

_ANSWER_S_MAX: Final = 3.0
"""How long each server may take to answer."""
_EVENTS_MAX: Final = 5
_SIMILAR_PAGES_MAX: Final = 50
"""Answers of each node, of up to some thousand names each, in the search for similar names."""
_ASKED_AT_ONCE_MAX: Final = 32


class _Cluster(NamedTuple):
    """The way to the servers: how to dial, what to show, how long to wait, and which there are."""

    dial: Dial
    credential: str
    timeout_s: float
    roll: Roll


@click.command()
@click.argument("name")
@client_options()
def why(name: str, as_json: bool, **given: Any) -> int:
    """Tell why a lock is not granted, and what to do.

    The first line is the answer. The lines below it have the holder with its process and its last renewal, the queue,
    the node, and what has happened to the lock last.
    """
    check_lock_name(name)
    settings = client_settings(given)
    timeout_s = min(_ANSWER_S_MAX, settings.connect_timeout_s)
    cluster = _Cluster(dial_of(settings), settings.credential(), timeout_s, roll_of(settings))
    with ThreadPoolExecutor(max_workers=1) as pool:
        last = pool.submit(_last_events, cluster, name)
        evidence = _gather(settings, cluster, name)
        events = last.result()
    answer = explain(evidence)
    if as_json:
        print_json(_facts(evidence, answer, events))
    else:
        _print(evidence, answer, events)
    return OK if evidence.error is None else exit_code_of(evidence.error)


# ---------------------------------------------------------------------- what the servers say


def _gather(settings: ClientSettings, cluster: _Cluster, name: str) -> LockEvidence:
    """Ask all servers at the same time: some of them may not answer, which is part of the answer."""
    with ThreadPoolExecutor(max_workers=3) as pool:
        trouble = pool.submit(_trouble_of_coordinator, cluster)
        state_and_status = pool.submit(_state_and_status, cluster, name)
        lock, error = _describe(settings, cluster, name)
        similar: Sequence[str] = ()
        is_whole = True
        if lock is not None and not lock.holders and not lock.waiters:
            similar, is_whole = _similar(cluster, name)
        state, status = state_and_status.result()
        return LockEvidence(
            name,
            lock=lock,
            error=error,
            rights=AskersRights() if lock is None else _rights(cluster, lock),
            state=state,
            primary=status,
            coordinator=trouble.result(),
            similar=similar,
            is_search_whole=is_whole,
        )


def _describe(
    settings: ClientSettings, cluster: _Cluster, name: str
) -> tuple[LockInfo | None, LockringError | None]:
    """Return the lock as its primary describes it, or the error that keeps it from that."""
    with connect(settings, tells=False) as client:
        try:
            return client.describe(name, timeout=cluster.timeout_s), None
        except LockringError as error:
            return None, error


def _state_and_status(cluster: _Cluster, name: str) -> tuple[ClusterState | None, ServerStatus | None]:
    """Return the cluster state and the status of the node that has the lock by it, as far as they can be had."""
    state = _state(cluster)
    primary = None if state is None else state.slots[checked_slot_of(name)].primary
    member = None if state is None or primary is None else state.members.get(primary.node)
    return state, None if member is None else _status(cluster, member.address)


def _state(cluster: _Cluster) -> ClusterState | None:
    """Return the newest cluster state that a server has, None if none may be read; a node's may be older."""
    for server in cluster.roll.all:
        with suppress(LockringError):
            return ask_state(
                server, timeout_s=cluster.timeout_s, dial=cluster.dial, credential=cluster.credential
            ).state
    return None


def _status(cluster: _Cluster, server: str) -> ServerStatus | None:
    with suppress(LockringError):
        return ask_report(
            server, timeout_s=cluster.timeout_s, dial=cluster.dial, credential=cluster.credential
        ).status
    return None


def _trouble_of_coordinator(cluster: _Cluster) -> str:
    """Return why the coordinator does not answer, "" if it does, or refuses to say."""
    server = cluster.roll.coordinator
    if not server:
        return ""
    try:
        ask_roll(server, timeout_s=cluster.timeout_s, dial=cluster.dial, credential=cluster.credential)
    except Denied:
        return ""
    except LockringError as error:
        return str(error)
    return ""


def _rights(cluster: _Cluster, lock: LockInfo) -> AskersRights:
    """Return the caller's rights to a lock, as far as its node says them."""
    address = cluster.roll.address_of(NodeId(lock.primary))
    if not address:
        return AskersRights()
    line = _line_to(cluster, address)
    try:
        return line.rights(LockName(lock.name))
    except LockringError:
        return AskersRights()  # it moved, or its node is gone since: the lock's state is the answer then
    finally:
        line.close()


def _similar(cluster: _Cluster, name: str) -> tuple[list[str], bool]:
    """Return locks in use whose names are similar, and whether all nodes have looked at all names."""
    nodes = cluster.roll.nodes
    if not nodes:
        return [], False

    def search(server: str) -> tuple[list[str], bool]:
        line = _line_to(cluster, server)
        try:
            return line.similar(LockName(name), pages_max=_SIMILAR_PAGES_MAX)
        except LockringError:
            return [], False  # a help, not the answer; the node may be of an older version
        finally:
            line.close()

    with ThreadPoolExecutor(min(_ASKED_AT_ONCE_MAX, len(nodes))) as pool:
        results = list(pool.map(search, nodes))
    pattern = NamePattern(name)
    ranked = sorted({(pattern.distance(each) or 0, each) for names, _ in results for each in names})
    return [each for _, each in ranked], all(is_whole for _, is_whole in results)


def _last_events(cluster: _Cluster, name: str) -> list[ServerEvent]:
    """Return the last events of the lock and of its slot; none from servers that do not answer or may not say."""
    sources = EventSources(functools.partial(_line_to, cluster), cluster.roll)
    try:
        replies = sources.ask(GetEvents(RequestNumber(1), name=name, limit=2 * _EVENTS_MAX)).replies
    finally:
        sources.close()
    return merged(replies)[-_EVENTS_MAX:]


def _line_to(cluster: _Cluster, server: str) -> ServerLine:
    return ServerLine(
        server,
        timeout_s=cluster.timeout_s,
        dial=cluster.dial,
        credential=cluster.credential,
        cluster=cluster.roll.cluster,
    )


# ---------------------------------------------------------------------- output


def _facts(found: LockEvidence, answer: Explanation, events: Sequence[ServerEvent]) -> dict[str, Any]:
    return {
        "name": found.name,
        "reason": answer.reason,
        "sentence": answer.sentence,
        "advice": answer.advice,
        "remarks": list(answer.remarks),
        "lock": None if found.lock is None else facts_of_lock(found.lock, found.state),
        "rights": None if found.rights.verbs is None else list(found.rights.verbs),
        "similar": list(found.similar),
        "events": [
            {"at": clock_time(each.event.age_ms / 1000), **facts_of_event(each.event)} for each in events
        ],
        "error": None if found.error is None else found.error.code,
    }


def _print(found: LockEvidence, answer: Explanation, events: Sequence[ServerEvent]) -> None:
    say(answer.sentence)
    lock = found.lock
    for holder in () if lock is None else lock.holders[:_EVENTS_MAX]:
        say(
            f"holder   {shown(holder.owner)} (token {holder.fencing_token}), since {clock_time(holder.held_s)}"
        )
        renewed = "" if holder.renewed_s is None else f"last renewal {duration(holder.renewed_s)} ago, "
        say(f"         {renewed}TTL {duration(holder.ttl_s)}, {duration(holder.ttl_left_s)} left")
        if holder.host:
            gone = "" if holder.away_s is None else f", not connected for {duration(holder.away_s)}"
            say(f"         process {holder.pid or '?'} on {shown(holder.host)}{gone}")
    if lock is not None:
        more = len(lock.holders) - _EVENTS_MAX
        if more > 0:
            say(f"         and {count(more, 'more holder')}: see lockring describe")
        for position, waiter in enumerate(lock.waiters[:_EVENTS_MAX], start=1):
            head = "queue   " if position == 1 else "        "
            mode = "" if waiter.mode == "exclusive" else f" ({waiter.mode})"
            say(f"{head} {position}. {shown(waiter.owner)}{mode}, for {duration(waiter.waited_s)}")
        if len(lock.waiters) > _EVENTS_MAX:
            say(f"         and {len(lock.waiters) - _EVENTS_MAX} more")
        say(f"node     {lock.primary}, slot {lock.slot}")
    for number, each in enumerate(events):
        head = "events  " if number == 0 else "        "
        say(f"{head} {clock_time(each.event.age_ms / 1000)}  {shown(sentence_of(each.event))}")
    for remark in answer.remarks:
        say(f"note     {shown(remark)}")
    if found.similar:
        say(f"similar  {', '.join(quoted(each) for each in found.similar)}")
    say(f"do       {answer.advice}")
