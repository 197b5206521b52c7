"""The password of a place in PostgreSQL: where it comes from, and that no text shows it."""

from __future__ import annotations

from pathlib import Path

import psycopg.conninfo
import pytest

from lockring.errors import InvalidRequest
from lockring.store.postgresql_place import parse

URL = "postgresql://me@a,b/db?sslmode=require#c"
VALUE, FILE = "LOCKRING_STORE_PASSWORD", "LOCKRING_STORE_PASSWORD_FILE"


def password_of(url: str, environ: dict[str, str]) -> str | None:
    place = parse(url, environ)
    found = psycopg.conninfo.conninfo_to_dict(place.conninfo)
    assert (found["user"], found["host"], found["dbname"], found["sslmode"]) == ("me", "a,b", "db", "require")
    assert "s3 cret" not in repr(place)
    if found.get("password") is None:
        return None
    password = str(found["password"])
    assert password not in place.secrets.scrubbed(f"it failed: {password}")
    return password


def test_a_password_comes_from_the_url_or_else_from_the_variables(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("s3 cret\n")
    assert password_of(URL, {}) is None, "libpq looks for one itself"
    assert password_of(URL, {"PGPASSWORD": "other"}) is None
    assert password_of(URL, {VALUE: "s3 cret", FILE: "/nowhere", "PGPASSWORD": "other"}) == "s3 cret"
    assert password_of(URL, {FILE: str(path)}) == "s3 cret"
    assert password_of(URL.replace("me@", "me:own@"), {VALUE: "s3 cret"}) == "own"
    assert password_of(URL.replace("?", "?password=own&"), {VALUE: "s3 cret", FILE: "/nowhere"}) == "own"


def test_a_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=rf"from {tmp_path}/none, which {FILE} names: no such file"):
        parse(URL, {FILE: f"{tmp_path}/none"})
