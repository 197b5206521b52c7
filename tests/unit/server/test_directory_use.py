"""A directory that another command has used is refused as it is; one's own, shared and new ones are not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lockring.errors import StoreError
from lockring.ids import NO_NODE, NodeId
from lockring.journal.files import DirectoryFiles
from lockring.journal.journal import Journal
from lockring.server.directory_use import Command, others_in, refuse_another_use
from lockring.store.sqlite import SqliteStore

COMMANDS: list[Command] = ["coordinator", "node", "serve", "up"]


def keep_state(directory: Path) -> None:
    SqliteStore(directory).close()


def keep_locks(directory: Path, node: str) -> None:
    Journal(DirectoryFiles(directory / "journal"), node=NodeId(node), durability="process").close()


def content_of(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def refusal(directory: Path, command: Command, node: str = NO_NODE) -> str:
    """Return why a command is refused a directory, "" if it is not; it writes nothing there."""
    before = content_of(directory)
    try:
        refuse_another_use(str(directory), command, node=NodeId(node))
    except StoreError as error:
        return str(error)
    finally:
        assert content_of(directory) == before
    return ""


@pytest.fixture
def of_up(tmp_path: Path) -> Path:
    keep_state(tmp_path / "coordinator")
    for node in ("N1", "N2"):
        keep_locks(tmp_path / node, node)
    return tmp_path


@pytest.fixture
def of_serve(tmp_path: Path) -> Path:
    keep_state(tmp_path)
    keep_locks(tmp_path, "node-1")
    return tmp_path


@pytest.fixture
def of_node(tmp_path: Path) -> Path:
    keep_locks(tmp_path, "n7")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_that_is_missing_or_empty_is_anyones(command: Command, tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing", command, "n1") == refusal(tmp_path, command, "n1") == ""


@pytest.mark.parametrize("command", ["coordinator", "node", "serve"])
def test_the_directory_of_up_is_left_to_it(command: Command, of_up: Path) -> None:
    assert refusal(of_up, command, "node-1") == (
        f"the data directory {of_up} is that of lockring up, whose coordinator and N1 and N2 it has: start that command"
        f" on it, or name another directory for lockring {command} with --data-dir"
    )


def test_the_parts_of_up_are_their_processes_own(of_up: Path) -> None:
    assert refusal(of_up, "up") == ""
    assert refusal(of_up / "coordinator", "coordinator") == ""
    assert refusal(of_up / "N1", "node") == ""


def test_the_directory_of_serve_is_left_to_it(of_serve: Path) -> None:
    assert refusal(of_serve, "up") == (
        f"the data directory {of_serve} has a journal of the node 'node-1', so it is that of lockring serve: start that"
        " command on it with --id node-1, or name another directory for lockring up with --data-dir"
    )
    assert "of lockring serve: start that command on it with --id node-1" in refusal(of_serve, "serve", "n2")
    assert refusal(of_serve, "serve", "node-1") == ""


def test_a_coordinator_and_a_node_may_share_a_directory_in_any_order(tmp_path: Path) -> None:
    coordinator_first, node_first = tmp_path / "a", tmp_path / "b"
    keep_state(coordinator_first)
    assert refusal(coordinator_first, "node") == refusal(coordinator_first, "serve", "n1") == ""
    keep_locks(node_first, "n1")
    assert refusal(node_first, "coordinator") == ""
    keep_state(node_first)
    assert refusal(node_first, "node") == refusal(node_first, "coordinator") == ""


def test_the_directory_of_a_node_is_left_to_it(of_node: Path) -> None:
    commands: list[Command] = ["serve", "up"]
    for command in commands:
        assert refusal(of_node, command, "node-1") == (
            f"the data directory {of_node} has a journal of the node 'n7', so it is that of lockring node: start that"
            f" command on it with --id n7, or name another directory for lockring {command} with --data-dir"
        )
    assert refusal(of_node, "node") == refusal(of_node, "coordinator") == ""


def test_a_journal_whose_node_cannot_be_read_is_left_to_the_journal_to_judge(of_node: Path) -> None:
    for segment in (of_node / "journal").glob("*.log"):
        segment.write_bytes(b"")
    assert refusal(of_node, "serve", "n1") == ""


def test_directories_of_other_nodes_below_ones_own_do_no_harm(tmp_path: Path) -> None:
    keep_locks(tmp_path / "N2", "N2")
    assert refusal(tmp_path, "coordinator") == refusal(tmp_path, "node") == ""
    assert "is that of lockring up, whose N2 it has" in refusal(tmp_path, "serve", "node-1")
    keep_state(tmp_path)
    assert refusal(tmp_path, "serve", "node-1") == ""


def test_the_other_content_of_a_directory_is_named_shortly(tmp_path: Path) -> None:
    keep_state(tmp_path)
    (tmp_path / "lost+found").mkdir()
    assert others_in(str(tmp_path)) == []
    for name in "edcba":
        (tmp_path / name).touch()
    assert others_in(str(tmp_path)) == list("abcd")
    assert not re.search("state|lock", " ".join(others_in(str(tmp_path))))
