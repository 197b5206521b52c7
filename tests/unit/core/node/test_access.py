"""The rights of a node's clients: each request is judged by those of the moment."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.core.access import NOTHING, REQUIREMENTS, Condition, Grantee, Permissions, hidden_id
from lockring.core.digest import mix
from lockring.ids import NodeId, SessionId
from lockring.protocol import (
    Acquire,
    Break,
    CloseSession,
    Describe,
    DescribeGroup,
    Drain,
    FindSimilar,
    FollowGroup,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    GrantReply,
    Keepalive,
    List,
    ListReply,
    Message,
    Refusal,
    Release,
    ReleaseReply,
    Routes,
    StateReply,
    StatusReply,
    ToNode,
    Undrain,
    Unwatch,
    ViewAck,
    Watch,
    WatchNotice,
)
from tests.unit.core.grantees import grantee
from tests.unit.core.node.world import MS, Client, Nodes

GROUP = "group:g"


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes("A")
    nodes.assign("A", None, "x", "y", "other", GROUP, *(f"job/{number}" for number in range(1, 9)))
    for _ in range(20):
        nodes.advance(200 * MS)
    return nodes


def only(answers: list[Message], kind: type[Message] = Refusal) -> Any:
    (answer,) = answers
    assert isinstance(answer, kind), answer
    return answer


OF_CLIENTS: dict[type[Message], tuple[Message, str]] = {
    Acquire: (Acquire(5, "s", 10_000, "me", 1, "x"), "acquire"),
    Describe: (Describe(5, "x"), "read"),
    DescribeGroup: (DescribeGroup(5, GROUP), "read"),
    FollowGroup: (FollowGroup(5, GROUP, "s", 1), "acquire"),
    List: (List(5, ""), "read"),
    GetEvents: (GetEvents(5), "read"),
    FindSimilar: (FindSimilar(5, "x"), "read"),
    Watch: (Watch(5, "x"), "watch"),
    Break: (Break(5, "x", 1), "break"),
    GetState: (GetState(5), "read"),
    GetStatus: (GetStatus(5), "read"),
    Drain: (Drain(5, NodeId("A")), "drain"),
    Undrain: (Undrain(5, NodeId("A")), "drain"),
}
"""A request of each kind that needs a right, and that right."""

WITHOUT_RIGHT: dict[type[Message], Message] = {
    Release: Release(5, "s", 1, "x"),
    Keepalive: Keepalive(5, "s", 10_000, "me", through=1, count=0, digest=0),
    CloseSession: CloseSession(5, "s"),
    ViewAck: ViewAck(5, GROUP, "s", 1, 7),
    Unwatch: Unwatch(5, 4),
    GetRoutes: GetRoutes(0),
}
"""A request of each kind that needs an identity alone, or a session of one's own."""


def test_every_kind_of_request_is_tested_here() -> None:
    servers = {kind for kind, row in REQUIREMENTS.items() if row.condition is Condition.SERVER}
    requests = {kind for kind in ToNode.__args__ if kind not in servers and kind.__name__ != "ClientHello"}
    assert requests == set(OF_CLIENTS) | set(WITHOUT_RIGHT)


@pytest.mark.parametrize("kind", OF_CLIENTS, ids=lambda kind: kind.__name__)
def test_a_request_without_its_right_is_refused_and_names_it(nodes: Nodes, kind: type[Message]) -> None:
    message, right = OF_CLIENTS[kind]
    others = [f"{verb} *" for verb in ("read", "acquire", "watch", "break", "drain") if verb != right]
    client = nodes.client("A", "s", access=grantee("web-1", *others))
    refusal = only(client.ask(message))
    assert (refusal.request, refusal.code, refusal.right) == (5, "denied", right)
    assert refusal.text.startswith("token web-1 may not ")
    (entry,) = nodes.audited
    assert (entry.act, entry.outcome, entry.right, entry.reason) == ("denied", "refused", right, refusal.text)
    assert not nodes.cores["A"].sessions.by_id


@pytest.mark.parametrize("kind", OF_CLIENTS, ids=lambda kind: kind.__name__)
def test_a_request_without_its_right_goes_on_where_rights_are_tried_out(
    nodes: Nodes, kind: type[Message]
) -> None:
    message, right = OF_CLIENTS[kind]
    plain, tried = (
        nodes.client("A", "s", client=name, access=access)
        for name, access in (("plain", None), ("tried", grantee("web-1", is_enforced=False)))
    )
    expected = [type(each) for each in plain.ask(message)]
    nodes.audited.clear()
    plain.ask(CloseSession(6, "s"))
    answers = tried.ask(message)
    assert [type(each) for each in answers] == expected
    assert not any(isinstance(each, Refusal) and each.code == "denied" for each in answers)
    assert [(each.outcome, each.right) for each in nodes.audited] == [("would-refuse", right)]


@pytest.mark.parametrize("kind", OF_CLIENTS, ids=lambda kind: kind.__name__)
def test_a_request_with_its_right_alone_is_carried_out(nodes: Nodes, kind: type[Message]) -> None:
    message, right = OF_CLIENTS[kind]
    client = nodes.client("A", "s", access=grantee("web-1", f"{right} *"))
    answers = client.ask(message)
    assert not any(isinstance(each, Refusal) and each.code == "denied" for each in answers)
    assert nodes.audited == []


@pytest.mark.parametrize(("name", "is_allowed"), [("job/1", True), ("job/2", False), ("x", False)])
def test_a_right_is_for_the_names_of_its_rule(nodes: Nodes, name: str, is_allowed: bool) -> None:
    client = nodes.client("A", "s", access=grantee("web-1", "acquire job/*", "deny acquire job/2"))
    (answer,) = client.acquire(name, 1)
    assert isinstance(answer, GrantReply if is_allowed else Refusal)


def test_the_node_of_a_drain_is_looked_at_and_no_lock_of_that_name(nodes: Nodes) -> None:
    client = nodes.client("A", "s", access=grantee("web-1", "drain A"))
    client.ask(Drain(5, NodeId("A")))
    assert [type(each) for each in nodes.asked_of_coordinator] == [Drain]
    assert only(client.ask(Drain(6, NodeId("B")))).code == "denied"


def test_a_list_shows_what_may_be_read_over_all_its_pages(nodes: Nodes) -> None:
    owner = nodes.client("A", "s")
    for number in range(1, 9):
        owner.acquire(f"job/{number}", number)
    owner.acquire("x", 20)
    client = nodes.client(
        "A", "t", access=grantee("web-1", "read job/*", "deny read job/3", "deny read job/5")
    )
    names: list[str] = []
    page = ListReply(0, [], 0, "")
    while page.next_slot >= 0:
        page = only(client.ask(List(5, "", page.next_slot, page.next_name, limit=2)), ListReply)
        assert len(page.locks) <= 2
        assert not {"job/3", "job/5", "x"} & {page.next_name, *(each.name for each in page.locks)}
        names += [each.name for each in page.locks]
    assert sorted(names) == [f"job/{number}" for number in (1, 2, 4, 6, 7, 8)]


def test_a_list_of_which_nothing_may_be_shown_is_refused(nodes: Nodes) -> None:
    client = nodes.client("A", "t", access=grantee("web-1", "read job/*"))
    refusal = only(client.ask(List(5, "x")))
    assert (refusal.code, refusal.right, refusal.text) == ("denied", "read", "token web-1 may not read 'x*'")


@pytest.mark.parametrize("message", [GetState(5), GetStatus(5)])
def test_the_state_of_the_cluster_needs_the_right_to_read_everything(nodes: Nodes, message: Message) -> None:
    partly = nodes.client("A", "t", access=grantee("web-1", "read *", "deny read secret/*"))
    refusal = only(partly.ask(message))
    assert refusal.code == "denied"
    assert 'give it the rule "read *", and no rule that denies a part of that' in refusal.text
    fully = nodes.client("A", "u", access=grantee("web-2", "read *"))
    assert isinstance(only(fully.ask(message), Message), (StateReply, StatusReply))


def rights(access: Grantee, permissions: Permissions) -> None:
    """Replace an identity's rights, as a new ACL file does."""
    access.permissions = permissions


def test_a_watch_ends_once_its_identity_may_not_watch_any_more(nodes: Nodes) -> None:
    access = grantee("web-1", "watch x")
    owner, client = nodes.client("A", "s"), nodes.client("A", "t", access=access)
    only(client.ask(Watch(5, "x")), WatchNotice)
    owner.acquire("x", 1)
    assert isinstance(client.inbox[-1], WatchNotice)
    rights(access, grantee("web-1", "watch y").permissions)
    seen = len(client.inbox)
    owner.release("x", 1)
    refusal = only(client.inbox[seen:])
    assert (refusal.request, refusal.code, refusal.right) == (5, "denied", "watch")
    owner.acquire("x", 2)
    assert len(client.inbox) == seen + 1
    assert only(client.ask(Unwatch(6, 5)), ReleaseReply).dropped is False


def test_a_watch_goes_on_where_rights_are_tried_out(nodes: Nodes) -> None:
    owner = nodes.client("A", "s")
    client = nodes.client("A", "t", access=grantee("web-1", is_enforced=False))
    client.ask(Watch(5, "x"))
    owner.acquire("x", 1)
    assert isinstance(client.inbox[-1], WatchNotice)


@pytest.mark.parametrize("message", [*WITHOUT_RIGHT.values(), *(each[0] for each in OF_CLIENTS.values())])
def test_an_identity_whose_credential_has_ended_may_do_nothing(nodes: Nodes, message: Message) -> None:
    access = grantee("web-1", "admin")
    client = nodes.client("A", "s", access=access)
    assert isinstance(client.acquire("x", 1)[0], GrantReply)
    nodes.audited.clear()
    access.is_expired, access.permissions = True, NOTHING
    answers = client.ask(message)
    if isinstance(message, GetRoutes):
        assert answers == []  # it has no number that an answer could name
    else:
        assert only(answers).code == "unauthenticated"
    (entry,) = nodes.audited
    assert "has expired, or was revoked" in entry.reason


def test_a_request_that_waits_for_its_slot_is_judged_again_when_it_is_handled(nodes: Nodes) -> None:
    access = grantee("web-1", "acquire z")
    client = nodes.client("A", "s", access=access)
    assert client.acquire("z", 1) == []
    rights(access, grantee("web-1", "acquire y").permissions)
    nodes.assign("A", None, "z")
    nodes.advance(500 * MS)
    assert only(client.inbox[-1:]).code == "denied"


def test_a_refusal_is_never_a_grant_by_another_way(nodes: Nodes) -> None:
    """Groups are locks: following one, and describing one, ask for the right to its lock's name."""
    client = nodes.client("A", "s", access=grantee("web-1", "acquire job/*", "read job/*"))
    for message in (DescribeGroup(5, GROUP), FollowGroup(6, GROUP, "s", 1), Describe(7, GROUP)):
        assert only(client.ask(message)).code == "denied"


def test_answers_that_need_no_right_come(nodes: Nodes) -> None:
    client = nodes.client("A", "s", access=grantee("web-1"))
    assert isinstance(client.ask(GetRoutes(0))[0], Routes)
    assert isinstance(client.ask(Unwatch(5, 4))[0], ReleaseReply)
    assert isinstance(client.ask(Release(6, "s", 1, "x"))[0], ReleaseReply)


# ------------------------------------------------------------------ sessions belong to identities


def in_session(kind: type[Message]) -> Message:
    """A request in the session "s"."""
    return WITHOUT_RIGHT[kind] if kind in WITHOUT_RIGHT else OF_CLIENTS[kind][0]


OWNED = [
    kind
    for kind in (*OF_CLIENTS, *WITHOUT_RIGHT)
    if REQUIREMENTS[kind].condition in (Condition.OWNER, Condition.OWNER_AND_NAME)
]


def test_every_message_that_names_a_session_needs_its_owner() -> None:
    assert {kind for kind in REQUIREMENTS if "session" in kind.__struct_fields__} == set(OWNED)


@pytest.mark.parametrize("kind", OWNED, ids=lambda kind: kind.__name__)
def test_a_session_is_of_use_to_the_identity_that_has_opened_it_alone(
    nodes: Nodes, kind: type[Message]
) -> None:
    owner = nodes.client("A", "s", access=grantee("web-1", "acquire *"))
    owner.acquire("x", 1)
    other = nodes.client("A", "s", client="other", access=grantee("web-2", "admin"))
    nodes.advance(200 * MS)
    deadline_ns = nodes.cores["A"].sessions.by_id[SessionId("s")].deadline_ns
    refusal = only(other.ask(in_session(kind)))
    assert (refusal.code, refusal.right) == ("denied", "")
    assert "it belongs to another identity, if there is one" in refusal.text
    assert nodes.cores["A"].sessions.by_id[SessionId("s")].deadline_ns == deadline_ns
    (entry,) = nodes.audited
    assert (entry.identity.name, entry.outcome) == ("web-2", "refused")
    assert owner.keep(count=1, digest=mix(1), through=1)[0].agreed
    assert only(owner.release("x", 1), ReleaseReply).dropped


@pytest.mark.parametrize("kind", OWNED, ids=lambda kind: kind.__name__)
def test_where_rights_are_tried_out_a_foreign_session_is_reported(nodes: Nodes, kind: type[Message]) -> None:
    nodes.client("A", "s", access=grantee("web-1", "acquire *")).acquire("x", 1)
    other = nodes.client("A", "s", client="other", access=grantee("web-2", "admin", is_enforced=False))
    answers = other.ask(in_session(kind))
    assert not any(isinstance(each, Refusal) and each.code == "denied" for each in answers)
    assert [each.outcome for each in nodes.audited] == ["would-refuse"]


def test_two_connections_of_one_identity_share_its_sessions(nodes: Nodes) -> None:
    nodes.client("A", "s", access=grantee("web-1", "acquire *")).acquire("x", 1)
    again = nodes.client("A", "s", client="again", access=grantee("web-1", "acquire *"))
    assert only(again.release("x", 1), ReleaseReply).dropped


def with_copies() -> Nodes:
    """Two nodes that keep journals, and a lock that "token web-1" holds at the first."""
    nodes = Nodes("A", "B", journals=True)
    nodes.assign("A", "B")
    for _ in range(20):
        nodes.advance(200 * MS)
    nodes.client("A", "s", access=grantee("web-1", "acquire *")).acquire("x", 1)
    nodes.advance(500 * MS)
    nodes.crash("A")
    return nodes


def test_a_copy_that_is_promoted_knows_to_whom_a_session_belongs() -> None:
    nodes = with_copies()
    nodes.promote("B")
    nodes.advance(5000 * MS)
    other = nodes.client("B", "s", access=grantee("web-2", "admin"))
    assert only(other.release("x", 1)).code == "denied"
    owner = nodes.client("B", "s", client="owner", access=grantee("web-1", "acquire *"))
    assert only(owner.release("x", 1), ReleaseReply).dropped


def test_a_journal_knows_to_whom_a_session_belongs() -> None:
    nodes = with_copies()
    nodes.restart("A")
    assert nodes.cores["A"].sessions.by_id[SessionId("s")].identity == "token web-1"


def test_a_session_whose_owner_is_not_known_belongs_to_its_first_user(nodes: Nodes) -> None:
    nodes.client("A", "s").acquire("x", 1)
    first = nodes.client("A", "s", client="first", access=grantee("web-1", "acquire *"))
    first.keep()
    other = nodes.client("A", "s", client="other", access=grantee("web-2", "admin"))
    assert only(other.release("x", 1)).code == "denied"


def shown_sessions(client: Client, message: Message) -> list[str]:
    """The sessions of all holders and waiters that an answer shows."""
    answer = client.ask(message)[0]
    locks = answer.locks if isinstance(answer, ListReply) else [answer.lock]  # type: ignore[attr-defined]
    return [each.session for lock in locks for each in (*lock.holders, *lock.waiters)]


QUESTIONS = (Describe(5, "x"), List(5, ""), Watch(5, "x"))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda each: type(each).__name__)
def test_the_id_of_a_session_is_shown_to_its_owner_and_to_admins(nodes: Nodes, question: Message) -> None:
    reader = ("read *", "watch *", "acquire *")
    one = nodes.client("A", "session-of-one", access=grantee("one", *reader))
    two = nodes.client("A", "session-of-two", access=grantee("two", *reader))
    one.acquire("x", 1)
    two.acquire("x", 1)
    both = ["session-of-one", "session-of-two"]
    hidden = [hidden_id(SessionId(each)) for each in both]
    assert shown_sessions(one, question) == [both[0], hidden[1]]
    assert shown_sessions(two, question) == [hidden[0], both[1]]
    assert shown_sessions(nodes.client("A", "t", access=grantee("three", *reader)), question) == hidden
    for access in (grantee("root", "admin"), grantee("three", is_enforced=False), None):
        assert shown_sessions(nodes.client("A", "u", access=access), question) == both


def test_the_events_of_a_watch_hide_the_sessions_of_others(nodes: Nodes) -> None:
    one = nodes.client("A", "session-of-one", access=grantee("one", "acquire *", "watch *"))
    two = nodes.client("A", "session-of-two", access=grantee("two", "watch *"))
    for client in (one, two):
        client.ask(Watch(5, "x"))
    one.acquire("x", 1)
    one.release("x", 1)
    for client, session in ((one, "session-of-one"), (two, hidden_id(SessionId("session-of-one")))):
        events = [each for news in client.inbox if isinstance(news, WatchNotice) for each in news.events]
        assert [each.session for each in events] == [session, session]
    assert len(hidden_id(SessionId("x"))) == 16
    assert hidden_id(SessionId("x")) != hidden_id(SessionId("y"))
