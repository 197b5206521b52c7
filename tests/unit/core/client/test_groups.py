"""A client's part in groups: what a member owns by which views, what it says, and when it ends."""

from __future__ import annotations

import pytest

from lockring.core.client import ClientEffect, GroupChange, GroupSubscription, Query, Ticket
from lockring.errors import ClientClosed, LockLost, NotHeld
from lockring.protocol import (
    DescribeGroup,
    FollowGroup,
    GroupMember,
    KeepaliveReply,
    Mode,
    Refusal,
    Release,
    SettlementNotice,
    Unwatch,
    View,
    ViewAck,
)
from lockring.ring.key_ring import KeyRing
from tests.unit.core.client.world import A, B, World, answers, connected, lost, only, routes, sent

LOCK = "group:g"
ME, OTHER = 7, 8
EVERYTHING = frozenset(range(len(KeyRing({}).owners)))
MINE = KeyRing({"me": 1, "other": 1}).slots_of("me")


def entry(name: str, generation: int) -> GroupMember:
    return GroupMember(name, 1, b"", "someone", generation)


ALONE = [entry("me", ME)]
BOTH = [entry("me", ME), entry("other", OTHER)]


class Member:
    """A member whose group is followed at A."""

    def __init__(self, world: World | None = None) -> None:
        self.world = connected() if world is None else world
        self.ticket: Ticket = self.world.hold(LOCK, ME, mode=Mode.SHARED)
        self.request: Query = self.world.core.follow(self.ticket, now_ns=self.world.now_ns)
        self.follow = only(self.world.take(), FollowGroup)

    @property
    def following(self) -> GroupSubscription:
        assert self.request.subscription is not None
        return self.request.subscription

    def view(
        self, number: int, members: list[GroupMember], *, settled: bool = False, address: str = A
    ) -> list[ClientEffect]:
        return self.world.say(address, View(self.request.exchange.request, number, settled, members))

    def settled(self, number: int) -> list[ClientEffect]:
        return self.world.say(A, SettlementNotice(self.request.exchange.request, number))

    def owns(self) -> frozenset[int]:
        return self.world.core.owned(self.request, self.world.now_ns)


def changes(effects: list[ClientEffect]) -> list[tuple[frozenset[int], frozenset[int]]]:
    return [(e.gained, e.lost) for e in effects if isinstance(e, GroupChange)]


def seen(effects: list[ClientEffect]) -> list[int]:
    return [message.view for message in sent(effects, ViewAck)]


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def owner(member: Member) -> Member:
    """A member that owns everything by view 10."""
    member.view(10, ALONE)
    member.settled(10)
    assert member.owns() == EVERYTHING
    return member


def test_a_member_follows_under_its_acquisition(member: Member) -> None:
    follow, ticket = member.follow, member.ticket
    assert (follow.name, follow.session, follow.acquisition, follow.view) == (
        LOCK,
        ticket.session.id,
        ticket.acquisition,
        0,
    )


def test_keys_that_a_view_gives_are_owned_once_it_is_settled(member: Member) -> None:
    effects = member.view(10, ALONE)
    assert seen(effects) == [10]
    assert changes(effects) == [(frozenset(), frozenset())]
    assert member.owns() == frozenset()
    assert changes(member.settled(10)) == [(EVERYTHING, frozenset())]
    assert member.owns() == EVERYTHING


def test_keys_that_a_view_takes_are_lost_at_once_and_the_rest_is_kept(owner: Member) -> None:
    effects = owner.view(20, BOTH)
    assert owner.owns() == MINE
    assert seen(effects) == [20]
    [(gained, taken)] = changes(effects)
    assert (gained, taken) == (frozenset(), EVERYTHING - MINE)
    assert changes(owner.settled(20)) == [(frozenset(), frozenset())]
    assert owner.owns() == MINE


def test_keys_that_an_unsettled_view_gives_back_are_not_owned_yet(owner: Member) -> None:
    owner.view(20, BOTH)
    owner.view(30, ALONE)
    assert owner.owns() == MINE
    owner.settled(20)  # late, of a view that is over
    assert owner.owns() == MINE
    owner.settled(30)
    assert owner.owns() == EVERYTHING


def test_an_older_view_changes_nothing(owner: Member) -> None:
    owner.view(20, BOTH)
    assert owner.view(15, ALONE, settled=True) == []
    assert owner.owns() == MINE
    assert owner.following.ownership.view.number == 20


def test_the_same_view_again_can_only_become_settled(owner: Member) -> None:
    owner.view(20, BOTH)
    effects = owner.view(20, BOTH, settled=True)
    assert seen(effects) == []
    assert owner.following.ownership.settled
    owner.view(20, BOTH, settled=False)
    assert owner.following.ownership.settled


def test_a_member_acknowledges_a_view_only_after_its_callbacks(owner: Member) -> None:
    owner.following.has_callback = True
    assert seen(owner.view(20, BOTH)) == []
    assert owner.owns() == MINE
    assert (
        seen(owner.view(30, BOTH)) == []
    )  # nothing more is lost, but the program is not done with the first
    owner.world.core.told(owner.request, now_ns=owner.world.now_ns)
    assert seen(owner.world.take()) == [30]


def test_nothing_is_owned_past_the_lease(owner: Member) -> None:
    owner.world.now_ns += owner.ticket.session.ttl_ns + 1
    assert owner.owns() == frozenset()
    effects = owner.world.take()
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert lost(effects) == [(owner.ticket, "local-deadline")]
    assert owner.following.ended
    assert owner.view(20, ALONE, settled=True) == []
    assert owner.owns() == frozenset()


def test_leaving_gives_all_keys_up_before_the_release(owner: Member) -> None:
    owner.world.core.leave(owner.request, now_ns=owner.world.now_ns)
    effects = owner.world.take()
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert only(effects, Unwatch).watch == owner.follow.request
    assert owner.owns() == frozenset()
    assert owner.world.believes(owner.ticket)
    owner.world.core.leave(owner.request, now_ns=owner.world.now_ns)
    assert changes(owner.world.take()) == []
    assert sent(owner.world.release(owner.ticket), Release)


def test_a_member_whose_id_was_taken_over_lets_go_and_ends(owner: Member) -> None:
    owner.following.has_callback = True
    replaced = [entry("me", ME), entry("me", OTHER)]
    effects = owner.view(20, replaced)
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert lost(effects) == []
    owner.world.core.told(owner.request, now_ns=owner.world.now_ns)
    effects = owner.world.take()
    assert lost(effects) == [(owner.ticket, "replaced")]
    assert seen(effects) == []
    assert sent(effects, Release)


def test_a_member_that_has_taken_an_id_over_gets_its_keys(member: Member) -> None:
    member.view(10, [entry("me", ME - 1), entry("me", ME)], settled=True)
    assert member.owns() == EVERYTHING


def test_after_a_lost_connection_a_member_follows_again_and_names_the_view_that_it_has_seen(
    owner: Member,
) -> None:
    owner.view(20, BOTH)
    owner.world.cut(A)
    assert owner.owns() == MINE
    assert only(owner.world.accept(A), FollowGroup).view == 20


def test_an_acknowledgement_that_a_broken_connection_kept_is_part_of_the_next_subscription(
    owner: Member,
) -> None:
    owner.following.has_callback = True
    owner.view(20, BOTH)
    owner.world.cut(A)
    assert only(owner.world.accept(A), FollowGroup).view == 10
    owner.world.core.told(owner.request, now_ns=owner.world.now_ns)
    assert seen(owner.world.take()) == [20]


def test_a_member_follows_at_the_new_primary_and_ignores_the_former_one(owner: Member) -> None:
    before = owner.request.exchange.request
    owner.world.say(A, routes(2, 1))
    assert only(owner.world.accept(B), FollowGroup).view == 10
    assert owner.world.say(A, View(before, 40, True, BOTH)) == []
    assert owner.owns() == EVERYTHING
    owner.view(30, BOTH, address=B)
    assert owner.owns() == MINE


def test_a_node_that_may_not_serve_is_asked_again(owner: Member) -> None:
    owner.world.say(A, Refusal(owner.request.exchange.request, "unavailable", "not now", LOCK))
    assert only(owner.world.pass_s(0.1), FollowGroup).view == 10
    assert owner.owns() == EVERYTHING


def test_a_permanent_refusal_ends_the_subscription_but_not_the_membership(owner: Member) -> None:
    effects = owner.world.say(A, Refusal(owner.request.exchange.request, "invalid", "no groups here", LOCK))
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert str(owner.following.error) == "no groups here"
    assert owner.owns() == frozenset()
    assert owner.world.believes(owner.ticket)


def test_closing_the_client_ends_the_subscription(owner: Member) -> None:
    owner.world.core.close(now_ns=owner.world.now_ns)
    effects = owner.world.core.take_effects(now_ns=owner.world.now_ns)
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert isinstance(owner.following.error, ClientClosed)
    assert owner.owns() == frozenset()


def test_only_a_held_membership_can_be_followed(member: Member) -> None:
    member.world.release(member.ticket)
    with pytest.raises(NotHeld):
        member.world.core.follow(member.ticket, now_ns=member.world.now_ns)
    again = Member()
    again.world.now_ns += again.ticket.session.ttl_ns + 1
    again.world.take()
    with pytest.raises(LockLost):
        again.world.core.follow(again.ticket, now_ns=again.world.now_ns)


def test_news_for_an_unknown_subscription_is_ignored(member: Member) -> None:
    assert member.world.say(A, SettlementNotice(999, 1), View(999, 1, True, [])) == []
    assert member.settled(5) == []


def test_a_look_at_a_group_is_answered_once(member: Member) -> None:
    world = member.world
    request = world.core.look(LOCK, give_up_at_ns=world.now_ns + 10**10, now_ns=world.now_ns)
    asked = only(world.take(), DescribeGroup)
    view = View(asked.request, 5, False, BOTH, ["other"])
    [answer] = answers(world.say(A, view))
    assert (answer.request, answer.answer, answer.error) == (request, view, None)


def test_keepalives_renew_a_member_like_any_holder(owner: Member) -> None:
    from lockring.protocol import Keepalive

    for _ in range(6):
        for keepalive in sent(owner.world.pass_s(3), Keepalive):
            owner.world.say(A, KeepaliveReply(keepalive.request, owner.ticket.session.ttl_ms, True))
    assert owner.owns() == EVERYTHING


def test_a_membership_that_is_cancelled_follows_its_group_no_more(member: Member) -> None:
    """A view that was under way must not end the membership a second time."""
    member.view(1, ALONE, settled=True)
    effects = member.world.cancel(member.ticket)
    assert only(effects, Unwatch).watch == member.follow.request
    assert only(effects, Release).acquisition == member.ticket.acquisition
    assert changes(effects) == [(frozenset(), EVERYTHING)]
    assert member.following.ended
    assert member.view(2, [entry("me", ME), entry("me", OTHER)]) == []
    assert member.world.core.waits(member.world.now_ns) == []
