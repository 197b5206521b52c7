"""`lockring coordinator export` and `import` as commands: files, streams, flags and messages."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lockring.cli.app import main
from lockring.clock import wall_ns
from lockring.cluster_state import ClusterState
from lockring.store.export_file import decode_export
from lockring.store.sqlite import SqliteStore


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return store_with(tmp_path / "old", "c1")


def store_with(path: Path, cluster: str) -> Path:
    store = SqliteStore(path)
    assert store.write(0, ClusterState(cluster=cluster, version=wall_ns(), coordinator="h:1"))
    store.close()
    return path


def cluster_in(path: Path) -> str:
    store = SqliteStore(path)
    state = store.read()
    store.close()
    assert state is not None
    return state.cluster


def test_a_state_goes_from_one_directory_to_another(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "state.json"), tmp_path / "new"
    assert main(["coordinator", "export", "--data-dir", str(old), file]) == 0
    said = capsys.readouterr()
    assert "exported cluster c1 (without members), version " in said.out
    assert "none starts on the old store any more" in said.out
    assert main(["coordinator", "import", "--data-dir", str(new), file]) == 0
    said = capsys.readouterr()
    assert f"from SQLite ({old}) into SQLite ({new})" in said.out
    assert said.err == ""
    assert cluster_in(new) == "c1"
    assert main(["coordinator", "import", "--data-dir", str(new), file]) == 0
    assert "has the state already" in capsys.readouterr().out


def test_a_copy_leaves_the_store_as_it_is_and_its_import_warns(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "state.json"), tmp_path / "new"
    assert main(["coordinator", "export", "--copy", "--data-dir", str(old), file]) == 0
    assert "this is a copy" in capsys.readouterr().out
    store = SqliteStore(old)
    state = store.read()
    store.close()
    assert state is not None
    assert state.relocation is None
    assert main(["coordinator", "import", "--data-dir", str(new), file]) == 0
    assert (
        f"the file is a copy: do not start a coordinator on SQLite ({old}) again" in capsys.readouterr().err
    )


def test_json_has_the_same_facts(tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, new = str(tmp_path / "state.json"), tmp_path / "new"
    assert main(["coordinator", "export", "--json", "--data-dir", str(old), file]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert (exported["cluster"], exported["members"], exported["file"]) == ("c1", [], file)
    assert main(["coordinator", "import", "--json", "--data-dir", str(new), file]) == 0
    imported = json.loads(capsys.readouterr().out)
    assert imported["version"] == exported["version"]
    assert imported["store"] == f"SQLite ({new})"
    assert (imported["unchanged"], imported["replaced_cluster"], imported["waits"]) == (False, None, None)
    assert imported["was_left"] is None


def test_a_state_goes_through_a_pipe(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["coordinator", "export", "--data-dir", str(old), "-"]) == 0
    data = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data.encode())))
    assert main(["coordinator", "import", "--data-dir", str(tmp_path / "new"), "-"]) == 0
    assert cluster_in(tmp_path / "new") == "c1"


def test_the_variable_of_one_store_does_not_stand_in_the_way_of_the_other(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, new = str(tmp_path / "state.json"), tmp_path / "new"
    monkeypatch.setenv("LOCKRING_DATA_DIR", str(old))
    assert main(["coordinator", "export", file]) == 0
    monkeypatch.delenv("LOCKRING_DATA_DIR")
    monkeypatch.setenv("LOCKRING_STORE", "etcd://127.0.0.1:1/x")
    assert main(["coordinator", "import", "--data-dir", str(new), file]) == 0


def test_no_file_is_written_over(tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state.json"
    file.write_text("precious")
    assert main(["coordinator", "export", "--data-dir", str(old), str(file)]) == 73
    assert "is there already; name another file, or remove it" in capsys.readouterr().err
    assert file.read_text() == "precious"


@pytest.mark.parametrize(("file", "what"), [("/dev/full", "no file"), (".", "a directory")])
def test_what_is_no_file_is_not_to_be_removed(
    file: str, what: str, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["coordinator", "export", "--data-dir", str(old), file]) == 73
    said = capsys.readouterr().err
    assert (
        f"{file} is {what}; name a file that does not exist, in a directory, or - for standard output" in said
    )
    assert cluster_in(old) == "c1"


def test_a_store_that_is_in_use_is_one_that_cannot_be_used(tmp_path: Path, old: Path) -> None:
    coordinator = SqliteStore(old)
    assert main(["coordinator", "export", "--data-dir", str(old), str(tmp_path / "x")]) == 73
    coordinator.close()


def test_a_forced_import_into_a_store_that_was_left_warns_of_the_other_one(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "state.json"), str(tmp_path / "new")
    assert main(["coordinator", "export", "--data-dir", str(old), file]) == 0
    assert main(["coordinator", "import", "--data-dir", new, file]) == 0
    assert "warning" not in capsys.readouterr().err
    assert main(["coordinator", "import", "--data-dir", str(old), "--force", file]) == 0
    said = capsys.readouterr().err
    assert f"warning: SQLite ({old}) was left: on " in said
    assert "there are two clusters: start none there any more" in said


def test_with_json_a_loss_is_told_in_the_object_alone(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "state.json"), store_with(tmp_path / "new", "c2")
    assert main(["coordinator", "export", "--json", "--data-dir", str(old), file]) == 0
    capsys.readouterr()
    assert main(["coordinator", "import", "--json", "--data-dir", str(new), "--force", file]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["replaced_cluster"] == "c2"
    assert said.err == ""


def test_a_forced_import_says_what_is_lost(
    tmp_path: Path, old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, new = str(tmp_path / "state.json"), store_with(tmp_path / "new", "c2")
    assert main(["coordinator", "export", "--data-dir", str(old), file]) == 0
    assert main(["coordinator", "import", "--data-dir", str(new), file]) == 73
    assert "has a state already, of cluster c2" in capsys.readouterr().err
    assert cluster_in(new) == "c2"
    assert main(["coordinator", "import", "--data-dir", str(new), "--force", file]) == 0
    assert f"warning: the state that SQLite ({new}) had is lost: cluster c2" in capsys.readouterr().err
    assert cluster_in(new) == "c1"


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["export", "state.json"], 64, "name the store"),
        (
            ["import", "--data-dir", "d", "missing.json"],
            73,
            "lockring: missing.json cannot be read: no such file",
        ),
        (
            ["import", "--data-dir", "d", "other.json"],
            73,
            "other.json cannot be imported: it is not an export",
        ),
        (["export", "--data-dir", "d", "--store", "etcd://h", "x"], 64, "contradicts"),
        (["export", "--store", "redis://h", "x"], 64, "named by a URL of one of these kinds"),
        (["--data-dir", "d", "export", "x"], 64, "flags come after the word 'export'"),
        (["exprot"], 64, "no such command 'exprot'"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    code: int,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text("{}")
    assert main(["coordinator", *words]) == code
    assert why in capsys.readouterr().err
    assert not Path("d").exists()


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", "| true"])
def test_a_store_is_not_marked_unless_the_output_was_written(old: Path, redirection: str) -> None:
    words = f"{sys.executable} -m lockring coordinator export --data-dir {shlex.quote(str(old))} -"
    if redirection == "| true":
        # The reader is gone before anything is written.
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(words.split(), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(writer)
    else:
        done = subprocess.run(
            ["sh", "-c", f"{words} {redirection}"], capture_output=True, timeout=60, check=False
        )
    assert done.returncode != 0
    store = SqliteStore(old)
    state = store.read()
    store.close()
    assert state is not None
    assert state.relocation is None


def test_a_store_is_marked_once_the_output_is_in_a_pipe_or_a_file(old: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "lockring", "coordinator", "export", "--data-dir", str(old), "-"]
    piped = subprocess.run(words, capture_output=True, timeout=60, check=True).stdout
    with (tmp_path / "state.json").open("wb") as file:
        subprocess.run(words, stdout=file, timeout=60, check=True)
    exported = [decode_export(data) for data in ((tmp_path / "state.json").read_bytes(), piped)]
    assert {(each.state.cluster, each.state.version, each.is_move) for each in exported} == {
        ("c1", exported[0].state.version, True)
    }
    store = SqliteStore(old)
    state = store.read()
    store.close()
    assert state is not None
    assert state.relocation is not None
