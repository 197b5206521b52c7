"""Files with secrets appear whole, with their mode, and replace nothing unasked."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lockring.errors import InvalidRequest
from lockring.security.whole_files import PRIVATE, write_whole


def test_a_file_has_its_mode_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_whole(path, b"secret", mode=PRIVATE, replace=False)
    assert path.read_bytes() == b"secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"former")
    with pytest.raises(InvalidRequest, match="exists already, and is not replaced"):
        write_whole(path, b"later", mode=PRIVATE, replace=False)
    assert path.read_bytes() == b"former"
    write_whole(path, b"later", mode=PRIVATE, replace=True)
    assert path.read_bytes() == b"later"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "key"
    path.symlink_to(target)
    with pytest.raises(InvalidRequest):
        write_whole(path, b"secret", mode=PRIVATE, replace=False)
    write_whole(path, b"secret", mode=PRIVATE, replace=True)
    assert not target.exists()
    assert not path.is_symlink()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written: no such file or directory"):
        write_whole(tmp_path / "no" / "key", b"x", mode=PRIVATE, replace=False)
