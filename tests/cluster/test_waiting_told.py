"""A command that waits says what for, and for how long at most."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lockring
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S, address, eventually, written

pytestmark = [pytest.mark.cluster]

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the command, without a terminal as a cron job does, and kills what is left of it."""
    made: list[subprocess.Popen[str]] = []

    def begin(server: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lockring", *arguments],
            env={**os.environ, "LOCKRING_SERVER": server},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        made.append(process)
        return process

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def test_a_missing_server_is_reported_before_giving_up(start):
    nobody = address()
    commands = (
        ["lock", "x", "--", "true"],
        ["ls"],
        ["describe", "x"],
        ["watch", "x"],
        ["watch", "--prefix", "x"],
    )
    for process in [start(nobody, first, "--connect-timeout", "8", *rest) for first, *rest in commands]:
        said = process.communicate(timeout=PATIENCE_S)[1].splitlines()
        assert process.returncode == 69
        assert len(said) == 2, process.args
        assert said[0].startswith("lockring: waiting: ")
        assert re.search(r"giving up in [1-7](\.\d+)? s", said[0]), said[0]
        for line in said:
            assert nobody in line
            assert "LOCKRING_SERVER" in line


def test_a_missing_default_server_is_reported_with_advice(start):
    process = start("", "lock", "x", "--server", "127.0.0.1:1", "--connect-timeout", "0.5", "--", "true")
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert "--server names it" in said


def test_quiet_says_only_what_went_wrong(start):
    process = start(address(), "lock", "-q", "x", "--connect-timeout", "3", "--", "true")
    assert process.communicate(timeout=PATIENCE_S)[1].count("\n") == 1


def test_a_program_gets_the_wait_in_json(start):
    process = start(address(), "lock", "--json", "x", "--connect-timeout", "8", "--", "true")
    waiting, error = map(json.loads, process.communicate(timeout=PATIENCE_S)[1].splitlines())
    assert (waiting["event"], waiting["reason"], waiting["name"]) == ("waiting", "unreachable", "x")
    assert 0 < waiting["gives_up_s"] < 8
    assert error["error"] == "unavailable"


@pytest.mark.parametrize(
    ("options", "bound"),
    [([], "there is no limit to the wait (-w sets one)"), (["-w", "500"], "giving up in 8 min")],
)
def test_the_holder_is_named_once_even_without_a_terminal(start, steady, tmp_path, options, bound):
    with lockring.Client(steady.servers, owner="the holder") as client:
        grant = client.lock("told to all").acquire()
        process = start(steady.servers, "lock", *options, "told to all", "--", "sh", "-c", "exit 3")
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "waiting: 'told to all' is held by the holder" in line
        assert bound in line
        eventually(lambda: client.describe("told to all").waiters)
        grant.release()
        assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 3


def test_leases_from_before_a_restart_are_reported_with_the_time_they_take(start, tmp_path):
    server = address()
    serve = [
        *("serve", "--no-grpc", "--listen", server, "--coordinator-listen", address()),
        *("--data-dir", str(tmp_path / "data"), "--backup-lease", "0.5", "--coordinator-lease", "20"),
        *("--durability", "none"),
    ]  # fmt: skip
    first = start("", *serve)
    eventually(lambda: _can_lock(server))
    first.kill()
    first.wait()
    start("", *serve)
    process = start(server, "lock", "after", "--", "sh", "-c", f"echo 1 > {tmp_path}/ran")
    assert process.stderr is not None
    lines: list[str] = []
    while "may still be held" not in "".join(lines[-1:]):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    assert "at most" in lines[-1]
    assert written(tmp_path / "ran") == "1"
    assert process.wait(PATIENCE_S) == 0


def _can_lock(server: str) -> bool:
    try:
        with lockring.Client(server, connect_timeout=1) as client:
            grant = client.lock("before").try_acquire()
            if grant is not None:
                grant.release()
            return grant is not None
    except lockring.LockringError:
        return False


def test_another_reason_for_the_wait_is_reported_too(start):
    with (
        LocalCluster(nodes=1, stabilization_s=0.3) as cluster,
        lockring.Client(cluster.servers, owner="the holder") as client,
    ):
        grant = client.lock("both").acquire()
        process = start(cluster.servers, "lock", "both", "--", "true")
        assert process.stderr is not None
        assert "is held by the holder" in process.stderr.readline()
        assert grant.held
        for name in [*cluster.nodes, "coordinator"]:
            cluster.kill(name)
        assert "could be reached" in process.stderr.readline()
