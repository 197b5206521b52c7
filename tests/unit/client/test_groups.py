"""Arguments about groups are checked before any I/O, and descriptions of groups read well."""

from __future__ import annotations

from typing import Any

import pytest

import lockring
from lockring.client.group_state import GroupInfo, member_payload, summary_of
from lockring.errors import InvalidRequest
from lockring.protocol import (
    MEMBER_PAYLOAD_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    GroupMember,
    HolderRecord,
    LockRecord,
    View,
    membership_of,
)


@pytest.fixture
def client() -> lockring.Client:
    return lockring.Client("127.0.0.1:1")


@pytest.mark.parametrize("name", ["", 7, "x" * 1019, "\ud800"])
def test_invalid_group_names_are_refused(client: lockring.Client, name: Any) -> None:
    with pytest.raises(InvalidRequest):
        client.group(name)


def test_a_group_has_its_name_and_lease(client: lockring.Client) -> None:
    group = client.group("x" * 1018, ttl=4)
    assert (len(group.name), group.ttl) == (1018, 4.0)
    assert repr(client.group("g")) == "<Group 'g', ttl 10 s>"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("",), "id"),
        ((7,), "id"),
        (("ä" * 65,), "the limit is 128"),
        (("\ud800",), "UTF-8"),
        (("a", 0), "1 to 100"),
        (("a", 101), "1 to 100"),
        (("a", True), "1 to 100"),
        (("a", 1.0), "1 to 100"),
        (("a", 1, "text"), "bytes"),
        (("a", 1, bytes(MEMBER_PAYLOAD_BYTES_MAX + 1)), "at most 768"),
    ],
    ids=repr,
)
def test_invalid_members_are_refused(client: lockring.Client, arguments: tuple[Any, ...], what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        client.group("g").join(*arguments)


def test_the_longest_id_and_payload_fit_into_the_lock_payload() -> None:
    member, payload = member_payload("x" * 128, 100, bytes(MEMBER_PAYLOAD_BYTES_MAX))
    assert len(payload) <= PAYLOAD_BYTES_MAX
    record = membership_of(payload)
    assert record is not None
    assert (record.id, record.weight, len(record.payload)) == (member, 100, MEMBER_PAYLOAD_BYTES_MAX)


def test_a_member_without_an_id_gets_a_random_one() -> None:
    assert member_payload(None, 1, b"")[0] != member_payload(None, 1, b"")[0]


def test_a_group_says_which_member_should_own_a_key() -> None:
    members = [
        GroupMember(name, weight, b"", "o", n) for n, (name, weight) in enumerate([("a", 1), ("b", 3)])
    ]
    info = GroupInfo("g", View(1, 9, False, members, ["b"]))
    assert info.shares()["b"] == pytest.approx(0.75, abs=0.1)
    assert sum(info.shares().values()) == 1
    assert info.owner("x") in ("a", "b")
    assert repr(info) == "<GroupInfo 'g' version 9, 2 members, waits for b>"
    assert GroupInfo("g", View(1, 0, True, [])).owner("x") is None


def test_a_lock_without_members_is_not_a_group() -> None:
    holder = HolderRecord("o", "s", 1, 1, 1, 1, 1)
    lock = LockRecord("group:g", 1, "n", 1, 1, 1, 0, [holder], [], 5)
    assert summary_of(lock) is None
    holder.payload = member_payload("a", 1, b"")[1]
    found = summary_of(lock)
    assert found is not None
    assert (found.name, found.members, found.version) == ("g", 1, 5)
