"""The place in etcd that a URL names, and what is said of a URL that names none."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.errors import InvalidRequest, StoreError
from lockring.store.etcd.place import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE, TlsFiles, parse
from lockring.store.urls import check_store_url


def test_everything_that_a_url_can_say() -> None:
    place = parse("etcds://me:s3cret%2F%40@a:1,b,[::1]:3/a%20b/c/?ca=/ca&cert=/c&key=/k", {})
    assert place.endpoints == ("a:1", "b:2379", "[::1]:3")
    assert place.prefix == "a b/c"
    assert (place.user, place.password()) == ("me", "s3cret/@")
    assert place.tls == TlsFiles("/ca", "/c", "/k")
    assert place.shown == "etcds://me@a:1,b:2379,[::1]:3/a b/c"


def test_the_least_that_a_url_can_say() -> None:
    place = parse("etcd://a", {PASSWORD_VARIABLE: "of another store"})
    assert place.endpoints == ("a:2379",)
    assert place.prefix == "lockring"
    assert place.user == ""
    assert place.tls is None
    assert parse("etcd://[::1]/", {}).endpoints == ("[::1]:2379",)
    assert parse("etcd://a//b", {}).prefix == "/b"


def test_without_files_tls_trusts_the_well_known_authorities() -> None:
    assert parse("etcds://a", {}).tls == TlsFiles("", "", "")


def test_no_text_about_a_place_shows_its_password() -> None:
    place = parse("etcd://me:s3cret@a", {})
    assert "s3cret" not in repr(place)
    assert "s3cret" not in str(place)
    assert "s3cret" not in place.shown


def test_a_password_comes_from_the_url_then_its_file_then_the_environment(tmp_path: Path) -> None:
    file, other = tmp_path / "password", tmp_path / "other"
    file.write_text("of the file\n")
    other.write_text("of the other file")
    variables = {PASSWORD_VARIABLE: "of the variable", PASSWORD_FILE_VARIABLE: str(other)}
    assert parse("etcd://me:own@a", variables).password() == "own"
    assert parse(f"etcd://me@a?password_file={file}", variables).password() == "of the file"
    assert parse("etcd://me@a", variables).password() == "of the variable"
    assert parse("etcd://me@a", {PASSWORD_FILE_VARIABLE: str(other)}).password() == "of the other file"


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    place = parse(f"etcd://me@a?password_file={tmp_path / 'absent'}", {})
    with pytest.raises(StoreError, match="absent: no such file"):
        place.password()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("etcd://me@a", PASSWORD_VARIABLE),
        ("etcd://", "HOST or HOST:PORT"),
        ("etcd://a,,b", "HOST or HOST:PORT"),
        ("etcd://a:port", "HOST or HOST:PORT"),
        ("etcd://a:70000", "HOST or HOST:PORT"),
        ("etcd://[::1", "HOST or HOST:PORT"),
        ("etcd://%2Frun/x", "a zone or an escaped character"),
        ("etcd://[fe80::1%25eth0]/x", "a zone or an escaped character"),
        ("etcd://a/b#c", "malformed"),
        ("http://a/b", "malformed"),
        ("etcd://a?ca=/f", "write etcds://"),
        ("etcds://a?cert=/f", "both cert and key"),
        ("etcds://a?key=/f", "both cert and key"),
        ("etcds://a?ca=", "unknown, empty, or given twice"),
        ("etcds://a?ca=/f&ca=/g", "unknown, empty, or given twice"),
        ("etcd://a?timeout=3", "unknown, empty, or given twice"),
        ("etcd://a/" + "x" * 201, "1 to 200 bytes"),
        ("etcd://a/%00", "1 to 200 bytes"),
    ],
)
def test_a_malformed_url_is_refused_with_a_hint(url: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        parse(url, {})


@pytest.mark.parametrize("url", ["etcd://a", "etcds://a"])
def test_a_store_in_etcd_is_chosen_by_its_scheme(url: str) -> None:
    check_store_url(url)
