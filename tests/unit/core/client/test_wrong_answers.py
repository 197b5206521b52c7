"""Servers that answer a request as if it were one of another kind: what was asked stays open."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from lockring.core.client import CallResult, ClientEffect, Query, Resolve, TicketState
from lockring.protocol import (
    AcquisitionVerdict,
    BreakReply,
    DescribeReply,
    Keepalive,
    KeepaliveReply,
    ListReply,
    Message,
    Release,
    ReleaseReply,
    SettlementNotice,
    StateReply,
    Verdict,
    View,
)
from lockring.units import NS_PER_S
from tests.unit.core.client.world import TTL_MS, A, World, connected, disconnects, lock_info, only

REPLIES: dict[str, Callable[[int], Message]] = {
    "released": lambda request: ReleaseReply(request, True),
    "kept": lambda request: KeepaliveReply(
        request, TTL_MS, False, [], [AcquisitionVerdict(1, Verdict.HELD, 7)]
    ),
    "described": lambda request: DescribeReply(request, lock_info("x")),
    "listed": lambda request: ListReply(request, [], -1, ""),
    "broken": lambda request: BreakReply(request, True, 0),
    "viewed": lambda request: View(request, 1, True, []),
    "settled": lambda request: SettlementNotice(request, 1),
    "state": lambda request: StateReply(request, b"", ""),
}


def until(world: World) -> dict[str, int]:
    return {"give_up_at_ns": world.now_ns + 60 * NS_PER_S, "now_ns": world.now_ns}


ASKS: dict[str, Callable[[World], Query]] = {
    "described": lambda world: world.core.describe("x", **until(world)),
    "listed": lambda world: world.core.list_locks("", **until(world)),
    "broken": lambda world: world.core.break_lock("x", 1, force=True, **until(world)),
    "state": lambda world: world.core.get_state(**until(world)),
    "viewed": lambda world: world.core.look("x", **until(world)),
    "kept": lambda world: world.core.renew_for("s", "x", ttl_ms=TTL_MS, **until(world)),
    "released": lambda world: world.core.release_for("s", "x", **until(world)),
}
"""Each query that is answered once, by its answer."""


def asked(world: World) -> Any:
    """The one message that the client sends."""
    return only(world.take(), Message)


def reconnect(world: World) -> list[ClientEffect]:
    """Let the client connect to A again, after the pause that a bad server earns."""
    del world.link_of[A]
    world.pass_s(1.3)
    return world.accept(A)


@pytest.mark.parametrize(
    ("right", "wrong"), [(each, wrong) for each in ASKS for wrong in REPLIES if wrong != each]
)
def test_a_query_that_gets_an_answer_to_another_question_is_asked_again(right: str, wrong: str) -> None:
    world = connected(session_per_acquisition=True)
    query = ASKS[right](world)
    first = asked(world)
    effects = world.say(A, REPLIES[wrong](first.request))
    assert not [each for each in effects if isinstance(each, CallResult)]
    (reason,) = disconnects(effects)
    assert "answered a request with" in reason
    again = only(reconnect(world), type(first))
    (result,) = world.say(A, REPLIES[right](again.request))
    assert isinstance(result, CallResult)
    assert (result.request, result.error) == (query, None)


@pytest.mark.parametrize("wrong", [each for each in REPLIES if each != "released"])
def test_a_release_that_gets_an_answer_to_a_question_is_sent_again(wrong: str) -> None:
    world = connected()
    ticket = world.hold()
    request = only(world.release(ticket), Release).request
    effects = world.say(A, REPLIES[wrong](request))
    assert not [each for each in effects if isinstance(each, Resolve)]
    assert disconnects(effects)
    again = only(reconnect(world), Release)
    assert again.acquisition == ticket.acquisition
    assert Resolve(ticket, None) in world.say(A, ReleaseReply(again.request, True))


@pytest.mark.parametrize("wrong", [each for each in REPLIES if each != "kept"])
def test_a_keepalive_that_gets_another_answer_is_sent_again_on_a_new_connection(wrong: str) -> None:
    world = connected()
    ticket = world.hold()
    request = only(world.pass_s(TTL_MS / 3000 + 0.01), Keepalive).request
    assert disconnects(world.say(A, REPLIES[wrong](request)))
    again = only(reconnect(world), Keepalive)
    world.say(A, KeepaliveReply(again.request, TTL_MS, True))
    world.pass_s(2 * TTL_MS / 3000)
    assert world.believes(ticket)


@pytest.mark.parametrize("late", REPLIES)
def test_a_late_answer_to_a_query_that_was_given_up_is_harmless(late: str) -> None:
    world = connected()
    query = ASKS["described"](world)
    request = asked(world).request
    world.core.abandon(query, now_ns=world.now_ns)
    assert world.say(A, REPLIES[late](request)) == []


@pytest.mark.parametrize("state", [TicketState.PENDING, TicketState.HELD])
@pytest.mark.parametrize("verdicts", list(product([Verdict.HELD, Verdict.LOST, Verdict.WAITING], repeat=2)))
def test_two_verdicts_on_one_acquisition_close_the_link_and_change_nothing(
    state: TicketState, verdicts: tuple[Verdict, Verdict]
) -> None:
    world = connected()
    ticket = world.acquire() if state == TicketState.PENDING else world.hold()
    request = only(world.pass_s(TTL_MS / 3000 + 0.01), Keepalive).request
    first, second = verdicts
    twice = [
        AcquisitionVerdict(ticket.acquisition, first, 7),
        AcquisitionVerdict(ticket.acquisition, second, 8),
    ]
    assert disconnects(world.say(A, KeepaliveReply(request, TTL_MS, False, [], twice)))
    assert ticket.state == state
