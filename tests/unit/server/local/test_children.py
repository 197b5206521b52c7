"""How processes are started: the command line says all that the settings say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from lockring.cli.sections import read_settings
from lockring.config import settings_of
from lockring.server.lifecycle import PARENT_VARIABLE
from lockring.server.local.children import child_environment, command_of, free_ports, is_free
from lockring.server.settings import CoordinatorSettings, NodeSettings


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("node", NodeSettings(id="N1")),
        (
            "node",
            NodeSettings(
                id="N1",
                listen="127.0.0.1:1",
                advertise="host:2",
                coordinators=("a:1", "b:2"),
                weight=3,
                drain_timeout_s=1.5,
                log_level="debug",
            ),
        ),
        (
            "coordinator",
            CoordinatorSettings(
                data_dir="/a b/c", new_cluster=True, replication="async", coordinator_lease_s=12.5
            ),
        ),
    ],
)
def test_the_command_of_some_settings_is_read_back_as_the_same(
    role: str, settings: NodeSettings | CoordinatorSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("LOCKRING_")]:
        monkeypatch.delenv(name)
    command = command_of(role, settings)
    assert command[:4] == [sys.executable, "-m", "lockring", role]
    flags = {each.flag: each for each in settings_of(type(settings))}
    given: dict[str, object] = {}
    words = iter(command[4:])
    for word in words:
        given[flags[word].field] = True if flags[word].kind == "switch" else next(words)
    assert read_settings(type(settings), role, given) == settings


def test_children_ignore_the_variables_of_their_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKRING_WEIGHT", "7")
    environment = child_environment()
    assert "LOCKRING_WEIGHT" not in environment
    assert environment[PARENT_VARIABLE] == str(os.getpid())


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        assert not is_free("127.0.0.1", sock.getsockname()[1])


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports("127.0.0.1", 5)
    assert len(set(ports)) == 5
    assert all(is_free("127.0.0.1", port) for port in ports)


def test_a_child_does_not_start_if_its_supervisor_is_gone_already() -> None:
    code = "from lockring.server.lifecycle import die_with_parent; die_with_parent(); print('lives')"
    environment = {**os.environ, PARENT_VARIABLE: "1"}  # not the process that starts it
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
