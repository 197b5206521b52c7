"""The forms of names, owners, node ids and addresses."""

from __future__ import annotations

import string
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.addresses import split_address
from lockring.errors import InvalidRequest
from lockring.names import LOCK_NAME_BYTES_MAX, OWNER_BYTES_MAX, check_lock_name, check_node_id, check_owner
from lockring.slots import SLOTS, slot_of


@given(st.text(min_size=1, max_size=200))
def test_a_slot_is_the_crc32_of_the_name_s_utf8_bytes(name: str) -> None:
    assert slot_of(name) == crc32(name.encode()) % SLOTS
    assert 0 <= slot_of(name) < SLOTS


def test_slots_of_some_names_never_change() -> None:
    """Every client and node computes them: another result would be another cluster."""
    assert [slot_of(name) for name in ("nightly", "a", "ä", "日本", " ")] == [3930, 3651, 387, 3532, 3909]


@pytest.mark.parametrize(
    "name",
    ["a", " ", "\n", "\0", "a/b/c", "日本語", "x" * LOCK_NAME_BYTES_MAX, "é" * (LOCK_NAME_BYTES_MAX // 2)],
)
def test_a_lock_name_is_any_text_of_1_to_1024_bytes(name: str) -> None:
    assert check_lock_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "must not be empty"),
        ("x" * (LOCK_NAME_BYTES_MAX + 1), "1025 bytes"),
        ("é" * (LOCK_NAME_BYTES_MAX // 2) + "x", "1025 bytes"),
        ("\udc80", "not valid UTF-8"),
        ("ok\ud83d", "not valid UTF-8"),
        (b"bytes", "text, got bytes"),
        (None, "text, got NoneType"),
        (7, "text, got int"),
    ],
)
def test_a_bad_lock_name_is_refused_with_the_reason(name: object, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        check_lock_name(name)


def test_the_error_about_a_giant_name_does_not_repeat_it() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_lock_name("x" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_an_owner_may_be_empty_but_has_a_bound() -> None:
    assert check_owner("") == ""
    assert check_owner("o" * OWNER_BYTES_MAX) == "o" * OWNER_BYTES_MAX
    for bad in ("o" * (OWNER_BYTES_MAX + 1), "ö" * OWNER_BYTES_MAX, "\ud800", b"x", 1, None):
        with pytest.raises(InvalidRequest):
            check_owner(bad)


@given(st.text(alphabet=string.ascii_letters + string.digits + "._-", min_size=1, max_size=63))
def test_a_node_id_starts_with_a_letter_or_digit(node: str) -> None:
    if node[0] in "._-":
        with pytest.raises(InvalidRequest):
            check_node_id(node)
    else:
        assert check_node_id(node) == node


@pytest.mark.parametrize("node", ["", "x" * 64, "a b", "a\n", "ä", "a/b", "a:1", "-a", ".a", None, 3, b"n1"])
def test_a_bad_node_id_is_refused(node: object) -> None:
    with pytest.raises(InvalidRequest, match="invalid node id"):
        check_node_id(node)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:9501", ("127.0.0.1", 9501)),
        ("host.example:0", ("host.example", 0)),
        ("h:65535", ("h", 65535)),
        ("[::1]:9501", ("::1", 9501)),
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        "host",
        "host:",
        ":9501",
        "host:65536",
        "host:-1",
        "host:+1",
        "host:x",
        "host:1.5",
        "h:٣",
        "[]:1",
        "http://host:9501",
        "host:1:2",
        "::1:9501",
        None,
        9501,
    ],
)
def test_a_bad_address_is_refused_with_an_example_of_a_good_one(address: object) -> None:
    with pytest.raises(InvalidRequest, match=r"HOST:PORT, such as 127\.0\.0\.1:9501"):
        split_address(address)
