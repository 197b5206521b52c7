"""The credential that a client shows: from a file that may be replaced, or from a variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.errors import ConfigError
from lockring.security.credential_source import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, CredentialSource


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv(TOKEN_FILE_VARIABLE, raising=False)
    path = tmp_path / "token"
    path.write_text("lr_web-1_first\n")
    return path


def test_without_a_file_and_a_variable_there_is_none(path: Path) -> None:
    assert CredentialSource()() == ""


def test_a_file_is_read_again_each_time_and_the_former_credential_outlasts_one_that_is_not_there(
    path: Path,
) -> None:
    source = CredentialSource(path)
    assert source() == "lr_web-1_first"
    path.write_text("lr_web-1_second\n")
    assert source() == "lr_web-1_second"
    path.unlink()
    assert source() == "lr_web-1_second"
    path.write_text("")
    assert source() == "lr_web-1_second"
    path.write_text("lr_web-1_third")
    assert source() == "lr_web-1_third"


def test_a_file_that_is_named_counts_more_than_one_of_the_variable_and_that_more_than_a_token_in_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text("other")
    monkeypatch.setenv(TOKEN_VARIABLE, " in-the-variable\n")
    assert CredentialSource()() == "in-the-variable"
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(other))
    assert CredentialSource()() == "other"
    assert CredentialSource(path)() == "lr_web-1_first"


def test_a_file_that_cannot_be_read_at_first_is_an_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        CredentialSource(path.with_name("missing"))
