"""`lockring events`: the recent events of a cluster and of its locks, from the memories of all servers."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final

import click
import msgspec

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, dial_of, roll_of
from lockring.cli.output import clock_time, print_json, say
from lockring.cli.sections import read_settings
from lockring.config import setting
from lockring.core.event_words import sentence_of
from lockring.core.events import KINDS, PAGE_MAX
from lockring.core.merged_events import ServerEvent, condensed, merged, newest_version
from lockring.errors import Denied, InvalidRequest, LockringError, Unavailable
from lockring.exits import OK, UNAVAILABLE
from lockring.ids import NO_VERSION, RequestNumber
from lockring.names import check_lock_name
from lockring.net.event_sources import EventSources, is_older_version
from lockring.net.server_line import ServerLine
from lockring.protocol import EventRecord, GetEvents
from lockring.terminals import shown
from lockring.units import DURATION_S_MAX

_LOOK_S: Final = 0.5
"""Between two looks, with --follow."""
_LOOKS_PER_ROLL: Final = 10
"""After so many looks, servers that have joined since are asked too."""
_ANSWER_S_MAX: Final = 2.0
"""How long each server may take to answer; all are asked at the same time."""


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidRequest(f"there is no kind of event {kind!r}; the kinds are {', '.join(KINDS)}")


class EventsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring events`."""

    follow: Annotated[
        bool, setting("Go on: print each event when it happens.", variable=False, file=False)
    ] = False
    prefix: Annotated[
        str,
        setting("Show events of locks alone, whose name starts with this.", variable=False, file=False),
    ] = ""
    kinds: Annotated[
        tuple[str, ...],
        setting(
            "Show events of these kinds alone.",
            metavar="KIND",
            check=_check_kind,
            key="kind",
            variable=False,
            file=False,
        ),
    ] = ()
    limit: Annotated[
        int,
        setting(
            "Show at most so many events of the past, the newest.",
            minimum=1,
            maximum=PAGE_MAX,
            variable=False,
            file=False,
        ),
    ] = 100
    since_s: Annotated[
        float | None,
        setting(
            "Show events of the past that are no older.",
            unit="seconds",
            minimum=0,
            maximum=DURATION_S_MAX,
            variable=False,
            file=False,
        ),
    ] = None

    def question(self) -> GetEvents:
        """Return the settings as a question to a server."""
        return GetEvents(
            RequestNumber(1),
            self.prefix,
            list(self.kinds),
            limit=self.limit,
            age_ms=-1 if self.since_s is None else int(self.since_s * 1000),
        )


@click.command()
@client_options(EventsSettings)
def events(as_json: bool, **given: Any) -> int:
    """Show what has happened: failovers, moves, members that come and go, drains, lost and broken locks.

    Every server remembers the last thousands of its events, as long as it runs. All are asked. A server that does not
    answer is named on standard error, and the exit code is 69: its events may be missing. You see the events of the
    locks that you may read, and those of the cluster if you may read everything.
    """
    settings = read_settings(EventsSettings, "events", given)
    if settings.prefix:
        check_lock_name(settings.prefix)
    cluster = client_settings(given)
    sources = sources_of(cluster)
    try:
        question = settings.question()
        answer = sources.ask(question)
        if not answer.replies:
            raise _no_answer(answer.troubles)
        found = merged(answer.replies)[-settings.limit :]
        _print(found, as_json)
        _warn(answer.troubles, {})
        if not settings.follow:
            return OK if all(isinstance(each, Denied) for each in answer.troubles.values()) else UNAVAILABLE
        _follow(
            sources,
            msgspec.structs.replace(question, limit=PAGE_MAX, age_ms=-1),
            found,
            answer.troubles,
            as_json,
        )
    finally:
        sources.close()
    return OK


def _follow(
    sources: EventSources,
    question: GetEvents,
    found: list[ServerEvent],
    troubles: Mapping[str, LockringError],
    as_json: bool,
) -> None:
    above = newest_version(found)
    for look in itertools.count(1):
        time.sleep(_LOOK_S)
        if look % _LOOKS_PER_ROLL == 0:
            sources.look_for_servers()
        answer = sources.ask_newer(question)
        found = merged(answer.replies, above=above)
        above = max(above, newest_version(found))
        _print(found, as_json)
        for server, reply in answer.replies.items():
            if reply.gap or reply.more:
                print(
                    f"lockring: warning: {server} has forgotten events in between",
                    file=sys.stderr,
                    flush=True,
                )
        _warn(answer.troubles, troubles)
        troubles = answer.troubles


def sources_of(cluster: ClientSettings) -> EventSources:
    """Return the sources of all servers of a cluster.

    Raises:
        LockringError: no server names the others.
    """
    credential, roll = cluster.credential(), roll_of(cluster)
    dial, timeout_s = dial_of(cluster), min(_ANSWER_S_MAX, cluster.connect_timeout_s)

    def line_to(address: str) -> ServerLine:
        return ServerLine(
            address, timeout_s=timeout_s, dial=dial, credential=credential, cluster=roll.cluster
        )

    return EventSources(line_to, roll)


def _no_answer(troubles: Mapping[str, LockringError]) -> LockringError:
    """Return the error of a question that no server has answered; a refusal counts before a silence."""
    refusals = [each for each in troubles.values() if not isinstance(each, Unavailable)]
    return (
        refusals[0]
        if refusals
        else Unavailable("; ".join(map(str, troubles.values())) or "there is no server")
    )


def _warn(troubles: Mapping[str, LockringError], known: Mapping[str, LockringError]) -> None:
    for server, error in troubles.items():
        if server in known:
            continue
        why = "it runs a version that remembers none" if is_older_version(error) else str(error)
        print(f"lockring: warning: events of {server} are missing: {why}", file=sys.stderr, flush=True)


def _print(found: list[ServerEvent], as_json: bool) -> None:
    for server, event in found if as_json else condensed(found):
        at = clock_time(event.age_ms / 1000)
        if as_json:
            print_json({"at": at, **facts(event), "server": server})
        else:
            say(f"{at}  {shown(sentence_of(event))}")


def facts(event: EventRecord) -> dict[str, Any]:
    """Return an event as a JSON object; what it is not about is null. `version` is text, as in `lockring status`."""
    return {
        "kind": event.kind,
        "text": sentence_of(event),
        "name": event.name or None,
        "owner": event.owner or None,
        "fencing_token": event.generation or None,
        "reason": event.reason or None,
        "node": event.node or None,
        "from": event.source or None,
        "slot": event.slot if event.slot >= 0 else None,
        "slots": event.slots or None,
        "version": str(event.version) if event.version != NO_VERSION else None,
    }
