"""The credential that a client shows: from a file that may be replaced, or from a variable."""

from __future__ import annotations

from pathlib import Path

import pytest

import lockring
from lockring.errors import ConfigError
from lockring.net.accepted import HELLO_BYTES_MAX
from lockring.net.frames import HEADER_BYTES, encode_frame
from lockring.protocol import ClientHello
from lockring.random_ids import new_id
from lockring.security.credential_source import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, CredentialSource
from lockring.security.tokens import CREDENTIAL_BYTES_MAX, new_token

FIRST, SECOND, THIRD = (new_token("web-1") for _ in range(3))
SECRET = "hidden" * 8
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    monkeypatch.delenv(TOKEN_FILE_VARIABLE, raising=False)
    path = tmp_path / "token"
    path.write_text(f"{FIRST}\n")
    return path


def test_without_a_file_and_a_variable_there_is_none(path: Path) -> None:
    assert CredentialSource()() == ""


def test_a_file_is_read_again_each_time_and_the_former_credential_outlasts_one_that_is_not_there(
    path: Path,
) -> None:
    source = CredentialSource(path)
    assert source() == FIRST
    path.write_text(f"{SECOND}\n")
    assert source() == SECOND
    path.unlink()
    assert source() == SECOND
    path.write_text("")
    assert source() == SECOND
    path.write_text(THIRD)
    assert source() == THIRD


def test_a_file_that_is_named_counts_more_than_one_of_the_variable_and_that_more_than_a_token_in_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text(JWT)
    monkeypatch.setenv(TOKEN_VARIABLE, f" {SECOND}\n")
    assert CredentialSource()() == SECOND
    monkeypatch.setenv(TOKEN_FILE_VARIABLE, str(other))
    assert CredentialSource()() == JWT
    assert CredentialSource(path)() == FIRST


def test_a_file_that_cannot_be_read_at_first_is_an_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        CredentialSource(path.with_name("missing"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (f"lr_web-1_{SECRET}"[:40], "the token is malformed: .* was it cut off"),
        (f"lr_web-1_{SECRET[:42]}é", "a character that is in no token and no JWT"),
        (f"lr_web-1_{SECRET[:42]}\udcff", "a character that is in no token and no JWT"),
        (f"lr_web-1_{SECRET[:42]}\x07", "a character that is in no token and no JWT"),
        (f"lr_web-1_{SECRET} {SECRET}", "several words"),
        (f"Bearer {SECRET}", "several words"),
        (SECRET, "neither a token of lockring, .* nor a JWT"),
        (f"{JWT}.{SECRET}", "neither a token of lockring, .* nor a JWT"),
        (SECRET * 2000, "is too long: a token or JWT has at most 12,288 bytes"),
    ],
)
def test_a_credential_that_no_server_could_accept_is_an_error_at_once_and_not_shown(
    path: Path, monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, given)
    with pytest.raises(ConfigError, match=f"^{TOKEN_VARIABLE} .*{said}") as caught:
        lockring.Client("127.0.0.1:1")
    path.write_bytes(given.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=f"(?s)^the token file .*{said}") as of_file:
        lockring.Client("127.0.0.1:1", token_file=path)
    for error in (caught, of_file):
        assert "hidden" not in str(error.value)


@pytest.mark.parametrize("given", [FIRST, JWT], ids=["token", "jwt"])
def test_a_credential_in_the_place_of_its_files_name_is_not_shown(path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match="a token is given in the place of the name of its file") as caught:
        CredentialSource(given)
    assert given not in str(caught.value)


def test_a_file_is_named_by_its_path(path: Path) -> None:
    assert CredentialSource(str(path).encode())() == FIRST  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="token_file is the path of a file"):
        CredentialSource(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        CredentialSource("a\0b")


def test_the_longest_credential_fits_its_hello_with_all_else_at_its_longest() -> None:
    hello = ClientHello(
        2**31,
        cluster=new_id(),
        client=new_id(),
        connection=2**63,
        software="x" * 256,
        differences=True,
        credential="x" * CREDENTIAL_BYTES_MAX,
    )
    assert len(encode_frame(hello)) <= HEADER_BYTES + HELLO_BYTES_MAX
