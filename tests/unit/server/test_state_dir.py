"""Where `serve` and `up` keep their state, and when a cluster is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.errors import ConfigError, StoreError
from lockring.server.settings import ServeSettings, UpSettings
from lockring.server.state_dir import StatePlace, kept_by_serve, kept_by_up


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "lockring"


def test_the_directory_is_named_by_the_command_and_the_port(home: Path) -> None:
    assert kept_by_serve(ServeSettings(listen="10.0.0.1:7000")) == StatePlace(str(home / "serve-7000"), False)
    assert kept_by_up(UpSettings(port=7100)) == StatePlace(str(home / "up-7100"), False)
    assert home.is_dir()
    assert not list(home.iterdir()), "the store makes its own, so that it knows that it is new"


def test_a_chosen_coordinator_port_is_a_name_too(home: Path) -> None:
    settings = ServeSettings(listen="127.0.0.1:0", coordinator_listen="127.0.0.1:7001")
    assert kept_by_serve(settings) == StatePlace(str(home / "serve-coordinator-7001"), False)


def test_ports_that_the_user_did_not_choose_make_a_new_cluster(home: Path) -> None:
    settings = ServeSettings(listen="127.0.0.1:0", coordinator_listen="127.0.0.1:0")
    assert kept_by_serve(settings) == kept_by_up(UpSettings(port=0)) == StatePlace(None, True)
    assert not home.exists()


@pytest.mark.parametrize("new_cluster", [False, True])
def test_an_explicit_choice_is_followed(home: Path, new_cluster: bool) -> None:
    for told in (
        kept_by_serve(ServeSettings(in_memory=True, new_cluster=new_cluster)),
        kept_by_up(UpSettings(in_memory=True, new_cluster=new_cluster)),
    ):
        assert told == StatePlace(None, new_cluster)
    for told in (
        kept_by_serve(ServeSettings(data_dir="d", new_cluster=new_cluster)),
        kept_by_up(UpSettings(data_dir="d", new_cluster=new_cluster)),
    ):
        assert told == StatePlace("d", new_cluster)


@pytest.mark.parametrize("settings", [ServeSettings, UpSettings])
def test_memory_and_a_directory_contradict_each_other(settings: type[ServeSettings | UpSettings]) -> None:
    with pytest.raises(ConfigError, match="--in-memory contradicts --data-dir d"):
        settings(in_memory=True, data_dir="d")


def test_without_a_home_the_choices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(
        "os.path.expanduser", lambda path: path
    )  # as for a user whom the system does not know
    with pytest.raises(StoreError, match="no default data directory") as caught:
        kept_by_serve(ServeSettings())
    assert "--data-dir DIR" in str(caught.value)
    assert "--in-memory" in str(caught.value)
