"""Roles add up to what an identity may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.access import (
    EVERYTHING,
    NOTHING,
    AccessPolicy,
    AccessRole,
    Assignee,
    ClaimPattern,
    Limits,
    Permissions,
    Verb,
    compile_permissions,
    parse_rule,
    why_denied,
)
from lockring.protocol.identities import ANONYMOUS, Claim, Identity

WEB = Identity("token", "web-1")
WORKER = Identity(
    "certificate", "spiffe://prod/worker", (Claim("san", "spiffe://prod/worker"), Claim("san", "w"))
)


def permissions(*texts: str) -> Permissions:
    return compile_permissions([parse_rule(text, "role") for text in texts], roles=["role"])


def policy(*assignees: Assignee, **roles: list[str]) -> AccessPolicy:
    return AccessPolicy(
        {
            name: AccessRole(name, tuple(parse_rule(rule, name) for rule in rules))
            for name, rules in roles.items()
        },
        assignees,
    )


def test_a_right_is_for_its_verb_alone() -> None:
    found = permissions("acquire jobs/*")
    assert found.allows(Verb.ACQUIRE, "jobs/7")
    assert not any(found.allows(verb, "jobs/7") for verb in Verb if verb is not Verb.ACQUIRE)


def test_admin_includes_every_right_for_every_name() -> None:
    found = permissions("admin")
    assert all(found.allows(verb, "jobs/7") for verb in Verb)
    assert found.is_admin
    assert EVERYTHING.is_admin
    assert not permissions("read *").is_admin


def test_a_denied_name_is_denied_to_an_admin_too() -> None:
    found = permissions("admin", "deny acquire *")
    assert not found.allows(Verb.ACQUIRE, "jobs/7")
    assert found.allows(Verb.BREAK, "jobs/7")


def test_to_whom_admin_is_denied_it_includes_nothing() -> None:
    found = permissions("admin", "deny admin", "read *")
    assert not found.is_admin
    assert [verb for verb in Verb if found.allows(verb, "x")] == [Verb.READ]


def test_nothing_is_nothing() -> None:
    assert not any(NOTHING.allows(verb, "x") for verb in Verb)


def test_a_refusal_names_the_rule_that_is_missing_or_in_the_way() -> None:
    found = permissions("read *", "deny acquire secret/*")
    assert why_denied(WEB, found, Verb.ACQUIRE, "jobs/7") == (
        "token web-1 may not acquire 'jobs/7': its roles (role) have no rule \"acquire jobs/7\""
    )
    assert why_denied(WEB, found, Verb.ACQUIRE, "secret/x") == (
        "token web-1 may not acquire 'secret/x': the rule \"deny acquire secret/*\" of the role 'role' forbids it"
    )
    assert why_denied(ANONYMOUS, NOTHING, Verb.ADMIN) == (
        'a client without credentials may not admin: it has no role that allows anything, and so no rule "admin"'
    )


def test_an_identity_has_the_roles_of_each_assignee_that_fits() -> None:
    found = policy(
        Assignee("token", "web-1", (), ("reader",)),
        Assignee("token", "", (), ("worker", "reader")),
        Assignee("token", "web-2", (), ("chief",)),
        Assignee("certificate", "web-1", (), ("chief",)),
        reader=["read *"],
        worker=["acquire jobs/*"],
        chief=["admin"],
    )
    assert found.roles_of(WEB) == ("reader", "worker")
    both = found.permissions_of(WEB)
    assert both.allows(Verb.READ, "x")
    assert both.allows(Verb.ACQUIRE, "jobs/7")
    assert not both.allows(Verb.BREAK, "x")
    assert found.permissions_of(WEB) is both


def test_an_identity_without_a_role_may_do_nothing() -> None:
    assert policy(reader=["read *"]).permissions_of(WEB) is NOTHING


@pytest.mark.parametrize(
    ("rules", "is_nothing"),
    [
        (["deny acquire secret/*"], True),
        (["deny admin", "admin"], True),
        (["read jobs/*", "deny read *"], True),
        ([], True),
        (["read jobs/*", "deny read jobs/1"], False),
        (["drain n1", "deny acquire *"], False),
    ],
)
def test_an_identity_whose_roles_allow_no_name_may_do_nothing(rules: list[str], is_nothing: bool) -> None:
    found = policy(Assignee("token", "web-1", (), ("role",)), role=rules)
    assert (found.permissions_of(WEB) is NOTHING) is is_nothing
    assert found.permissions_of(WEB) is found.permissions_of(WEB)


def test_an_assignee_needs_all_of_its_claims() -> None:
    exact = ClaimPattern("san", "spiffe://prod/worker")
    start = ClaimPattern("san", "spiffe://prod/", is_prefix=True)
    other = ClaimPattern("san", "spiffe://test/", is_prefix=True)
    assert exact.matches(WORKER)
    assert start.matches(WORKER)
    assert not other.matches(WORKER)
    assert not ClaimPattern("san", "spiffe://prod/").matches(WORKER)
    assert not ClaimPattern("sub", "w").matches(WORKER)
    assert Assignee("certificate", "", (exact, ClaimPattern("san", "w")), ("r",)).matches(WORKER)
    assert not Assignee("certificate", "", (exact, other), ("r",)).matches(WORKER)


def test_the_smallest_limit_of_all_roles_counts() -> None:
    roles = {
        "a": AccessRole(
            "a", (parse_rule("read *", "a"),), Limits(sessions=5, locks=None, requests_per_s=100)
        ),
        "b": AccessRole("b", (), Limits(sessions=9, locks=7)),
    }
    both = AccessPolicy(roles, [Assignee("token", "web-1", (), ("a", "b"))]).permissions_of(WEB)
    assert both.limits == Limits(sessions=5, locks=7, waiters=None, requests_per_s=100)


RULES = st.lists(
    st.sampled_from(
        [
            "read *",
            "read a*",
            "acquire a*",
            "acquire ab",
            "deny read ab*",
            "deny acquire a",
            "admin",
            "break",
            "watch b*",
        ]
    ),
    max_size=5,
)


@given(RULES, RULES, st.sampled_from(list(Verb)), st.text(alphabet="ab", max_size=3))
def test_one_more_role_takes_nothing_away_but_by_a_rule_that_denies(
    one: list[str], other: list[str], verb: Verb, name: str
) -> None:
    before, after = permissions(*one), permissions(*one, *other)
    if before.allows(verb, name) and not after.allows(verb, name):
        rule = after.rule_for(verb, name)
        denies_admin = any(text == "deny admin" for text in other)
        assert denies_admin or (rule is not None and rule.denies)
    if after.allows(verb, name):
        assert permissions(*[text for text in one + other if not text.startswith("deny")]).allows(verb, name)
