"""Where `serve` and `up` keep their state, and when a cluster is new."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lockring.errors import ConfigError, StoreError
from lockring.server.settings import NodeSettings, ServeSettings, UpSettings
from lockring.server.state_dir import COORDINATOR_PART, StatePlace, kept_by_serve, kept_by_up, parts_of_up


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


# --------------------------------------------------------------------------- the locks of nodes


def test_locks_are_kept_where_there_is_a_directory_and_written_unless_told_otherwise() -> None:
    assert NodeSettings(id="n").keeps == "none"
    assert NodeSettings(id="n", data_dir="d").keeps == "process"
    assert NodeSettings(id="n", data_dir="d", durability="disk").keeps == "disk"
    assert NodeSettings(id="n", data_dir="d", durability="none").keeps == "none"


def test_the_node_of_serve_keeps_its_locks_beside_the_state() -> None:
    settings = ServeSettings(durability="disk")
    assert settings.node("127.0.0.1:9500", "d").keeps == "disk"
    assert ServeSettings().node("127.0.0.1:9500", "d").keeps == "process"
    assert ServeSettings(in_memory=True).node("127.0.0.1:9500", None).keeps == "none"


@pytest.mark.parametrize(
    "make",
    [
        lambda: NodeSettings(id="n", durability="disk"),
        lambda: ServeSettings(listen="127.0.0.1:0", coordinator_listen="127.0.0.1:0", durability="disk"),
        lambda: UpSettings(port=0, durability="disk"),
        lambda: UpSettings(store="etcd://h:1", durability="disk"),
    ],
    ids=["node", "serve", "up", "up with a store"],
)
def test_durability_without_a_directory_is_refused_with_what_to_do(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match=r"--durability disk needs a directory .* with --data-dir DIR$"):
        make()


@pytest.mark.parametrize("settings", [ServeSettings, UpSettings])
def test_durability_in_memory_is_refused_with_what_to_do(
    settings: type[ServeSettings | UpSettings],
) -> None:
    with pytest.raises(ConfigError, match="--data-dir DIR, and leave out --in-memory"):
        settings(in_memory=True, durability="process")
    assert settings(in_memory=True, durability="none").durability == "none"


def test_nodes_of_up_may_keep_their_locks_while_the_coordinators_share_a_store() -> None:
    settings = UpSettings(store="etcd://h:1", data_dir="d", durability="disk")
    assert kept_by_up(settings) == StatePlace("d", False)
    assert kept_by_up(UpSettings(store="etcd://h:1")) == StatePlace(None, False)


# --------------------------------------------------------------------------- the parts of the directory of `up`


def test_the_coordinator_of_up_finds_its_part_missing_in_a_directory_that_is_new(tmp_path: Path) -> None:
    part = parts_of_up(str(tmp_path / "new" / "one"))
    assert part == tmp_path / "new" / "one" / COORDINATOR_PART
    assert not part.exists()
    assert part.parent.stat().st_mode & 0o077 == 0, "locks name their owners"


def test_the_coordinator_of_up_finds_its_part_empty_in_a_directory_that_was_there(tmp_path: Path) -> None:
    part = parts_of_up(str(tmp_path))
    assert part == tmp_path / COORDINATOR_PART
    assert part.is_dir()
    (part / "state.db").touch()
    assert parts_of_up(str(tmp_path)) == part


def test_a_state_that_an_earlier_release_kept_in_the_directory_of_up_is_found(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    assert parts_of_up(str(tmp_path)) == tmp_path


def test_a_directory_of_up_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"{tmp_path}/file/d cannot be made: not a directory"):
        parts_of_up(str(tmp_path / "file" / "d"))
