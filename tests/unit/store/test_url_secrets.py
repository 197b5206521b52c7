"""The password in a store's URL is shown nowhere, however the URL is broken."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockring.cli.app import main
from lockring.config import load
from lockring.errors import LockringError
from lockring.server.local.children import child_environment, command_of, variables_of
from lockring.server.settings import CoordinatorSettings, StorePlaceSettings, UpSettings
from lockring.store.etcd import place as etcd_place
from lockring.store.postgresql import PostgresStore
from lockring.store.url_parts import Secrets, take_apart
from tests.processes import PATIENCE_S

SIGNS: Final = "/?#@%[]:;&=+ \\'\"<>|^`{}~!$*(),\t\né…"
WORDS: Final = st.from_regex(r"[A-Za-z]{6,9}|[1-9]{4}", fullmatch=True)
"""Parts of a password. Those of digits could be taken for a port."""
FORMS: Final = (
    "{scheme}://u:{password}@127.0.0.1:1/db",
    "{scheme}://u:{password}@127.0.0.1:1,127.0.0.2:1/db#c",
    "{scheme}://:{password}@127.0.0.1:1",
    "{scheme}:///u:{password}@127.0.0.1:1/db",
    "{scheme}:/u:{password}@127.0.0.1:1/db",
    "{scheme}:u:{password}@127.0.0.1",
    "{scheme}://u:{password}@[::1/db",
    "{scheme}://u:{password}@127.0.0.1:port/db",
    "{scheme}://u:{password}@127.0.0.1:99999/db",
    "{scheme}://u:{password}@127.0.0.1:1/db?colour=red",
    "{scheme}://u:{password}@127.0.0.1:1/db?colour",
    "{scheme}://u:{password}@127.0.0.1:1/db#%0A",
    "{scheme}://127.0.0.1:1/db?user=u&password={password}",
    "{scheme}://127.0.0.1:1/db?pasword={password}",
    "{scheme}://127.0.0.1:1/db?sslpassword={password}#c",
    "u:{password}@127.0.0.1:1/db",
    "{password}",
    "{password}://u@h",
    "host=127.0.0.1 password={password}",
)


class Password:
    """A password of two words, with signs between them: none of the two may be shown."""

    def __init__(self, first: str, signs: str, second: str) -> None:
        self.text = f"{first}{signs}{second}"
        self.parts = (first, second)

    def is_in(self, text: str) -> bool:
        whole = (
            self.text,
            quote(self.text),
            quote(self.text, safe=""),
            quote_plus(self.text),
            repr(self.text)[1:-1],
        )
        return any(each in text for each in (*whole, *self.parts))

    def __repr__(self) -> str:
        return repr(self.text)


PASSWORDS: Final = st.builds(Password, WORDS, st.text(SIGNS, min_size=1, max_size=3), WORDS)


def said_of(url: str) -> list[str]:
    """All that is said of a URL, from the settings to the store."""
    said = []
    for struct, section in ((CoordinatorSettings, "coordinator"), (UpSettings, "up")):
        try:
            loaded = load(struct, section, flags={"store": url}, environ={})
            said += [repr(loaded), str(loaded), *command_of(section, loaded)]
        except LockringError as error:
            said += all_of(error)
    try:
        place = etcd_place.parse(url, {})
        said += [repr(place), place.shown]
    except LockringError as error:
        said += all_of(error)
    try:
        PostgresStore(url).close()
    except LockringError as error:
        said += all_of(error)
    return said


def all_of(error: BaseException) -> list[str]:
    """The texts of an error and of all that it came from, those included that a traceback leaves out."""
    said = ["".join(traceback.format_exception_only(error)), repr(error)]
    for each in (error.__cause__, error.__context__):
        if each is not None:
            said += all_of(each)
    return said


@pytest.mark.parametrize("scheme", ["postgresql", "etcds", "mysql"])
@pytest.mark.parametrize("form", FORMS)
@given(password=PASSWORDS)
@example(password=Password("hidden", "/", "secret"))
@example(password=Password("hidden", "#", "secret"))
@example(password=Password("hidden", "?", "secret"))
@example(password=Password("hidden", "@", "secret"))
@example(password=Password("hidden", "%zz", "secret"))
@example(password=Password("hidden", " ", "secret"))
@example(password=Password("hidden", "[", "secret"))
@example(password=Password("1234", "/", "secret"))
@settings(max_examples=10)
def test_no_text_shows_a_password(scheme: str, form: str, password: Password) -> None:
    url = form.format(scheme=scheme, password=password.text)
    for text in said_of(url):
        assert not password.is_in(text), text


@pytest.mark.parametrize("scheme", ["postgresql", "etcd"])
@given(password=PASSWORDS)
@settings(max_examples=30)
def test_no_text_shows_a_password_that_is_escaped_as_it_should_be(scheme: str, password: Password) -> None:
    url = f"{scheme}://u:{quote(password.text, safe='')}@127.0.0.1:1/db"
    parts = take_apart(url, "")
    assert parts.password == password.text
    assert not password.is_in(repr(parts))
    for text in said_of(url):
        assert not password.is_in(text), text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hidden/secret@127.0.0.1:1/db",
        "postgresql://u:hidden secret@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?secret=1",
        "etcd://u:1234/secret@127.0.0.1:1/x",
        "u:secret@h/db",
        "secret",
        "",
    ],
)
@pytest.mark.parametrize(
    "command",
    [["coordinator"], ["up"], ["coordinator", "export", "file"], ["coordinator", "import", os.devnull]],
)
def test_a_url_that_is_no_stores_is_a_wrong_flag(
    url: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--store", url]) == 64
    said = capsys.readouterr()
    assert "--store: " in said.err
    assert "secret" not in said.err
    assert "hidden" not in said.err


@pytest.mark.parametrize("flag", ["--data-dir", "--stor", ""])
@pytest.mark.parametrize("command", ["coordinator", "up", "serve"])
def test_a_url_in_the_wrong_place_is_not_repeated(
    flag: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [each for each in (command, flag, "postgresql://u:secret@h/db") if each]
    assert main(words) == 64
    said = capsys.readouterr()
    assert "secret" not in said.err + said.out


def test_a_store_of_the_wrong_type_in_the_file_is_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lockring.toml"
    file.write_text('[coordinator]\nstore = ["postgresql://u:secret@h/db"]\n')
    assert main(["coordinator", "--config", str(file)]) == 64
    said = capsys.readouterr()
    assert "line 2: [coordinator] store: expected text, got a value that is not shown" in said.err
    assert "secret" not in said.err


@pytest.mark.parametrize("command", ["coordinator", "coordinator export"])
def test_a_store_without_its_library_is_a_missing_extra(command: str) -> None:
    arguments = [*command.split(), "--store", "postgresql://h/db", *(["file"] if "export" in command else [])]
    code = (
        "import sys; sys.modules['lockring.store.postgresql'] = None;"
        f"from lockring.cli.app import main; sys.exit(main({arguments}))"
    )
    # In a process of its own: a server makes the process that it runs in its own, with its signals and its collector.
    done = subprocess.run([sys.executable, "-c", code], timeout=PATIENCE_S, capture_output=True, text=True)
    assert done.returncode == 78, done.stderr
    assert "lockring[postgresql]" in done.stderr


def test_a_child_gets_the_url_and_its_password_by_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKRING_STORE_PASSWORD", "secret")
    settings = CoordinatorSettings(store="etcd://u@h")
    assert not any("etcd" in each or "secret" in each for each in command_of("coordinator", settings))
    environ = child_environment(variables_of(settings))
    assert (environ["LOCKRING_STORE"], environ["LOCKRING_STORE_PASSWORD"]) == ("etcd://u@h", "secret")
    assert "LOCKRING_STORE_PASSWORD" not in child_environment(variables_of(CoordinatorSettings()))


def test_what_a_library_says_is_scrubbed_of_all_forms_of_a_secret() -> None:
    secrets = Secrets(["pass word/1", "", "pw"])
    assert secrets.scrubbed('bad "pass word/1", pass%20word/1 or pass+word%2F1') == 'bad "…", … or …'
    assert secrets.scrubbed("pw: spwn, 'pw'") == "…: spwn, '…'"
    assert secrets.scrubbed("nothing") == "nothing"


def test_the_settings_of_moves_do_not_show_it_either() -> None:
    assert "secret" not in repr(StorePlaceSettings(store="postgresql://u:secret@h"))
