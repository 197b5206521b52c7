"""The sentence for each reason, and which of several reasons comes first."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lockring import LockInfo
from lockring.cli.why_reasons import Explanation, LockEvidence, explain
from lockring.client.lock_info import Waiter
from lockring.errors import Denied, LockringError, Unavailable
from lockring.holders import Holder
from lockring.net.server_line import AskersRights
from lockring.protocol import ServerStatus
from lockring.slots import slot_of
from tests.unit.core.states import first_state, member, with_members


def holder(owner: str = "me", **more: Any) -> Holder:
    facts: dict[str, Any] = {"renewed_s": 1.0, "host": "web1", "pid": 4711} | more
    return Holder(owner, "s", 7, held_s=12.0, ttl_s=10.0, ttl_left_s=6.0, **facts)


def lock(
    *holders: Holder, waiters: tuple[Waiter, ...] = (), mode: str = "exclusive", name: str = "x"
) -> LockInfo:
    return LockInfo(
        name=name,
        mode=mode,
        permits=1,
        holders=list(holders),
        waiters=list(waiters),
        fencing_token_last=7,
        change=0,
        slot=slot_of("x"),
        primary="a",
    )


def why(found: LockInfo | None = None, **more: Any) -> Explanation:
    return explain(LockEvidence("x", lock=found, **more))


def waiter(owner: str = "you", mode: str = "exclusive") -> Waiter:
    return Waiter(owner, "t", mode, 3.0)


@pytest.mark.parametrize(
    ("found", "reason", "sentence"),
    [
        (lock(), "free", "'x' is free: no client holds it or waits for it"),
        (lock(holder()), "held", "'x' is held by me for 12 s (token 7)"),
        (
            lock(holder(), waiters=(waiter(), waiter("they"))),
            "waiters",
            "'x' is held by me for 12 s (token 7), and 2 clients wait for it before a new one, the first you for 3 s",
        ),
        (
            lock(holder(), holder("he"), mode="shared"),
            "held",
            "'x' is shared by 2 clients, the first of them me for 12 s (token 7)",
        ),
        (
            lock(holder(), holder("he"), mode="shared", waiters=(waiter(),)),
            "readers",
            (
                "'x' is held by 2 readers, the first of them me for 12 s (token 7), and the writer you has waited for them for"
                " 3 s: readers that come now wait behind it"
            ),
        ),
        (
            lock(holder(), mode="shared", waiters=(waiter(mode="shared"),)),
            "waiters",
            "'x' is shared by me for 12 s (token 7), and 1 client waits for it before a new one, the first you for 3 s",
        ),
        (
            lock(holder(away_s=4.0)),
            "holder-gone",
            (
                "'x' is still held by me for 12 s (token 7), whose connection has been gone for 4 s: unless the holder comes"
                " back, it is free once the lease ends, in 6 s"
            ),
        ),
        (
            lock(holder(renewed_s=6.5)),
            "holder-gone",
            (
                "'x' is still held by me for 12 s (token 7), which was last heard 6.5 s ago: unless that renews its lease, it"
                " is free in 6 s"
            ),
        ),
        (
            lock(holder(broken=True, away_s=4.0)),
            "broken",
            (
                "the lease of me for 12 s (token 7) on 'x' was broken by an operator, so that it is free once its holder lets"
                " go, in 6 s at the latest"
            ),
        ),
        (lock(holder(away_s=4.0), holder("he"), mode="shared"), "held", None),
        (
            lock(waiters=(waiter(),)),
            "waiters",
            "'x' is free, and about to be granted to you, which waits for it",
        ),
    ],
)
def test_a_lock_that_was_described(found: LockInfo, reason: str, sentence: str | None) -> None:
    answer = why(found)
    assert answer.reason == reason
    assert sentence is None or answer.sentence == sentence
    assert answer.advice


@pytest.mark.parametrize(
    ("error", "reason", "sentence"),
    [
        (
            Denied("token web-1 may not read 'x': no rule", right="read"),
            "no-right",
            "token web-1 may not read 'x': no rule",
        ),
        (
            Unavailable("n", reason="no-primary"),
            "no-primary",
            "no client can acquire 'x': no node serves slot 1667, to which it belongs",
        ),
        (
            Unavailable("leases end in 3 s", reason="leases"),
            "leases",
            "no client can acquire 'x' yet: leases end in 3 s",
        ),
        (
            Unavailable("n", reason="no-coordinator"),
            "no-coordinator",
            "no client can acquire 'x': the node that has it has been without the coordinator, and its lease is over",
        ),
        (Unavailable("disk full", reason="journal"), "journal", "no client can acquire 'x': disk full"),
        (Unavailable("no route", reason="unreachable"), "unreachable", "nothing is known of 'x': no route"),
        (Unavailable("mute", reason="silent"), "unreachable", "nothing is known of 'x': mute"),
        (Unavailable("soon", reason="failover"), "unavailable", "no node answers for 'x': soon"),
        (LockringError("strange"), "unavailable", "no node answers for 'x': strange"),
    ],
)
def test_a_lock_that_no_node_has_described(error: LockringError, reason: str, sentence: str) -> None:
    answer = why(error=error)
    assert (answer.reason, answer.sentence) == (reason, sentence)


def test_the_status_of_the_node_says_for_how_long_the_coordinator_has_been_gone() -> None:
    status = ServerStatus("node", "a", 1, 7, lease_over_ms=4_000, away_ms=34_000)
    answer = why(error=Unavailable("a does not serve", reason="failover"), primary=status)
    assert answer.sentence == (
        "no client can acquire 'x': node a, which has it, has been without the coordinator for 34 s, and its lease is over"
    )


def test_a_slot_whose_primary_is_no_member_any_more_has_none() -> None:
    state = with_members(first_state("a", "b"), member("b"))
    assert (
        why(error=Unavailable("cannot be reached", reason="unreachable"), state=state).reason == "no-primary"
    )


def test_a_coordinator_that_does_not_answer_is_a_remark_with_the_time_that_is_left() -> None:
    status = ServerStatus("node", "a", 1, 7, lease_left_ms=21_000, away_ms=9_000)
    answer = why(lock(holder()), coordinator="c:1 cannot be reached", primary=status)
    assert answer.reason == "held"
    assert answer.remarks == (
        "the coordinator does not answer (c:1 cannot be reached): node a serves for another 21 s without it",
    )


def test_a_drain_is_the_reason_if_the_lock_is_free_and_a_remark_if_it_is_held() -> None:
    draining = msgspec.structs.replace(member("a"), condition="draining")
    state = with_members(first_state("a", "b"), draining, member("b"))
    assert (
        why(lock(), state=state).sentence
        == "'x' is free; its node a is draining, with 4096 slots still on it"
    )
    answer = why(lock(holder()), state=state)
    assert (answer.reason, answer.remarks) == (
        "held",
        ("its node a is draining, with 4096 slots still on it",),
    )


def test_a_lock_whose_name_would_be_a_command_is_one_word_of_each_advised_command() -> None:
    name = "x; touch PWNED #"
    advice = why(lock(holder(), name=name)).advice
    assert "lockring break 'x; touch PWNED #' --token 7 ends" in advice
    gone = why(lock(holder(away_s=3.0), name="-x")).advice
    assert "lockring break --token 7 --force -- -x frees" in gone
    assert why(lock(), similar=["$(id)"]).advice == "check the name: lockring why '$(id)'"


def test_a_name_that_is_like_others_in_use_is_the_reason_of_a_free_lock_alone() -> None:
    answer = why(lock(), similar=["X", "x/y"])
    assert (answer.reason, answer.advice) == ("wrong-name", "check the name: lockring why X")
    assert answer.sentence == (
        "'x' is free, and no client waits for it, but 'X', 'x/y' are in use, whose names are like it"
    )
    assert why(lock(), is_search_whole=False).remarks == (
        "not all names of locks could be looked at for one that is similar",
    )


def test_a_name_with_control_characters_does_not_reach_the_terminal() -> None:
    answer = why(lock(holder("a\x1b[31m")))
    assert "\x1b" not in answer.sentence + answer.advice


def test_a_caller_that_may_not_acquire_it_is_answered_with_that_first() -> None:
    answer = why(lock(holder()), rights=AskersRights(("read",), "token web-1"))
    assert answer.reason == "no-right"
    assert answer.sentence == "token web-1 may not acquire 'x', whether or not it is held"
    assert answer.remarks == ("'x' is held by me for 12 s (token 7)",)
    assert why(lock(holder()), rights=AskersRights(("read", "acquire"), "token web-1")).reason == "held"
    assert why(lock(holder()), rights=AskersRights(None)).reason == "held"
