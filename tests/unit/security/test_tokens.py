"""Tokens are drawn, hashed and checked; no text shows one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.errors import ConfigError, InvalidRequest, Unauthenticated
from lockring.security.tokens import (
    TokenBook,
    TokenEntry,
    hash_of,
    id_of_token,
    is_token,
    new_token,
    parse_hash,
    read_credential,
)

IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


@given(IDS)
def test_a_token_has_its_id_and_a_secret_of_256_bits(token_id: str) -> None:
    token = new_token(token_id)
    assert is_token(token)
    assert id_of_token(token) == token_id
    assert token.startswith(f"lr_{token_id}_")
    assert len(token) == len(f"lr_{token_id}_") + 43
    assert new_token(token_id) != token


def test_the_hash_is_that_of_the_whole_token_as_other_tools_compute_it() -> None:
    token = new_token("web_1")
    assert hash_of(token).hex() == hashlib.sha256(token.encode()).hexdigest()
    assert parse_hash(hash_of(token).hex()) == hash_of(token)


@pytest.mark.parametrize("token_id", ["", "-x", "a b", "a" * 64, "a/b", "ü", "a\n"])
def test_a_malformed_id_is_refused(token_id: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid token id"):
        new_token(token_id)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t[:-1],
        lambda t: t + "x",
        lambda t: t[3:],
        lambda t: "lr_" + t[-43:],
        lambda t: "lr__" + t[-43:],
        lambda t: t[:-1] + "=",
        lambda t: t[:-1] + "ü",
        lambda t: "",
        lambda t: "lr_",
    ],
)
def test_a_malformed_token_is_refused_and_not_shown(change) -> None:
    token = new_token("web-1")
    broken = change(token)
    with pytest.raises(Unauthenticated) as caught:
        TokenBook([TokenEntry("web-1", (hash_of(token),))]).check(broken, wall_s=0)
    assert token[-20:-2] not in str(caught.value)


@given(st.text(max_size=80))
def test_no_text_is_accepted_by_chance(text: str) -> None:
    book = TokenBook([TokenEntry("web-1", (bytes(32),))])
    for credential in (text, f"lr_web-1_{text}"):
        with pytest.raises(Unauthenticated):
            book.check(credential, wall_s=0)


def test_the_right_token_is_accepted_until_it_expires() -> None:
    token = new_token("web-1")
    book = TokenBook([TokenEntry("web-1", (hash_of(token),), expires_s=1000.0)])
    proof = book.check(token, wall_s=999.9)
    assert (proof.entry.id, proof.hash) == ("web-1", hash_of(token))
    with pytest.raises(Unauthenticated, match="the token web-1 has expired"):
        book.check(token, wall_s=1000.0)


def test_an_unknown_id_and_a_wrong_secret_are_refused_in_the_same_words() -> None:
    known, wrong, unknown = new_token("web-1"), new_token("web-1"), new_token("web-2")
    book = TokenBook([TokenEntry("web-1", (hash_of(known),), expires_s=0.0)])
    texts = []
    for each in (wrong, unknown):
        with pytest.raises(Unauthenticated) as caught:
            book.check(each, wall_s=5.0)
        texts.append(str(caught.value).replace("web-2", "web-1"))
    assert (
        texts[0]
        == texts[1]
        == ("the token web-1 is not known here: its id or its secret is wrong, or it was removed")
    )


def test_two_secrets_are_accepted_while_one_replaces_the_other() -> None:
    old, new = new_token("web-1"), new_token("web-1")
    both = TokenBook([TokenEntry("web-1", (hash_of(old), hash_of(new)))])
    later = TokenBook([TokenEntry("web-1", (hash_of(new),))])
    proofs = [both.check(each, wall_s=0) for each in (old, new)]
    assert [later.is_accepted(each) for each in proofs] == [False, True]
    assert not TokenBook().is_accepted(proofs[1])


@pytest.mark.parametrize("text", ["", "ab", "A" * 64, "g" * 64, "0" * 65])
def test_a_malformed_hash_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="64 digits"):
        parse_hash(text)


def test_a_credential_is_read_from_a_file_without_the_end_of_the_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for written in (b"lr_x_1", b"lr_x_1\n", b" lr_x_1\r\n"):
        path.write_bytes(written)
        assert read_credential(path) == "lr_x_1"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "has no token; it has one line"),
        (b"\n", "has no token; it has one line"),
        (b"a b", "has no token but several words"),
        (b"one\ntwo\n", "has no token but several words"),
        (b"\xff", "has a character that is in no token"),
        (b"x" * 20_000, "is too long"),
    ],
)
def test_a_file_without_one_token_is_refused_and_its_content_not_shown(
    tmp_path: Path, data: bytes, said: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=said):
        read_credential(path)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read: no such file"):
        read_credential(path)
