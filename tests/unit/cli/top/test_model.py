"""The view of `lockring top` after each look, and since when servers are away."""

from __future__ import annotations

import json
from dataclasses import replace

from lockring.cli.top.looks import slice_of
from lockring.cli.top.model import (
    CLUSTER,
    EVENTS,
    LOCKS,
    Absences,
    CoordinatorView,
    LiveLook,
    TopView,
    as_builtins,
    merged,
    silent_servers,
)
from lockring.errors import Denied, Unavailable
from lockring.views.locks import LocksView
from tests.unit.cli.top.views import cluster, member, row, top_view

GONE = Unavailable("no node answers")
FORBIDDEN = Denied("no right to read", right="read")


def test_a_part_without_an_answer_keeps_its_last_value_and_one_that_is_denied_does_not() -> None:
    before = top_view()
    after = merged(before, LiveLook(TopView(events=()), {CLUSTER: GONE, LOCKS: FORBIDDEN}))
    assert after.cluster is before.cluster
    assert after.coordinator is before.coordinator
    assert after.locks is None
    assert after.events == ()


def test_there_is_no_answer_only_if_no_part_has_one_and_a_refusal_is_one() -> None:
    assert LiveLook(TopView(), {CLUSTER: GONE, LOCKS: GONE, EVENTS: GONE}).no_answer is GONE
    assert LiveLook(TopView(), {CLUSTER: GONE, LOCKS: GONE}).no_answer is None
    assert LiveLook(TopView(), {CLUSTER: FORBIDDEN, LOCKS: GONE, EVENTS: GONE}).no_answer is None


def test_a_look_is_denied_only_if_every_part_is() -> None:
    assert LiveLook(TopView(), {CLUSTER: FORBIDDEN, LOCKS: FORBIDDEN, EVENTS: FORBIDDEN}).denied is FORBIDDEN
    assert LiveLook(TopView(), {CLUSTER: FORBIDDEN, LOCKS: FORBIDDEN}).denied is None
    assert LiveLook(TopView(), {CLUSTER: FORBIDDEN, LOCKS: FORBIDDEN, EVENTS: GONE}).denied is None


def test_absences_begin_with_the_first_silence_and_end_with_an_answer() -> None:
    absences = Absences()
    absences.note({"node N2": "x"}, now_s=1.0)
    away = absences.note({"node N3": "y", "node N2": "z"}, now_s=3.0)
    assert [(each.server, each.since_s, each.reason) for each in away] == [
        ("node N2", 1.0, "z"),
        ("node N3", 3.0, "y"),
    ]
    absences.note({}, now_s=4.0)
    assert absences.note({"node N2": "x"}, now_s=5.0)[0].since_s == 5.0


def test_members_and_the_coordinator_that_do_not_answer_are_silent() -> None:
    members = [member("N1"), member("N2", answered_s=None, problem="it does not answer: refused")]
    silent = CoordinatorView("c:1", answers=False, problem="refused")
    look = LiveLook(TopView(cluster=cluster(members), coordinator=silent))
    assert silent_servers(look) == {"coordinator c:1": "refused", "node N2": "it does not answer: refused"}


def test_a_slice_has_each_lock_once_and_says_if_there_are_more() -> None:
    waiting = LocksView([row("b", waiters=1)], 1, "", 0, "")
    some = LocksView([row("a"), row("b", waiters=1)], 9, "b", 3, "")
    found = slice_of(waiting, some)
    assert [each.name for each in found.rows] == ["b", "a"]
    assert (found.matched, found.has_more, found.unserved_slots) == (9, True, 3)


def test_json_has_the_read_model_and_the_missing_parts() -> None:
    view = replace(top_view(), events=None)
    found = json.loads(json.dumps(as_builtins(LiveLook(view, {EVENTS: FORBIDDEN}), "name")))
    assert found["cluster"]["version"] == "1795975015854596018", "as text: JSON readers round large numbers"
    names = [each["name"] for each in found["locks"]["rows"]]
    assert names == sorted(names)
    assert found["events"] is None
    (missing,) = found["missing"]
    assert missing["part"] == EVENTS
    assert missing["right"] == "read"
