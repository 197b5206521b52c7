"""The log of a real server, as an operator finds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

import lockring
from tests.cluster.running import running
from tests.processes import PATIENCE_S, eventually

pytestmark = pytest.mark.cluster

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (debug|info|warning|error) +(node-1|coordinator): \S"
)
SERVE = (
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--coordinator-listen",
    "127.0.0.1:0",
    "--no-grpc",
    "--log-level",
    "debug",
)


def test_each_line_says_when_and_of_whom_and_a_lock_that_was_broken_is_there() -> None:
    with running(*SERVE) as server:
        server.wait_for("clients reach it with")
        (address,) = re.findall(r"LOCKRING_SERVER=(\S+);", server.text)
        with lockring.Client(address, owner="alice") as client:
            grant = client.lock("nightly").acquire(timeout=PATIENCE_S)
            command = [
                sys.executable,
                "-m",
                "lockring",
                "break",
                "nightly",
                "--token",
                str(grant.fencing_token),
            ]
            for force in ([], ["--force"]):
                environ = {**os.environ, "LOCKRING_SERVER": address}
                done = subprocess.run(
                    [*command, *force],
                    env=environ,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE_S,
                    check=False,
                )
                assert done.returncode in (0, 1), done.stderr
        token = grant.fencing_token
        server.wait_for(
            f"lock 'nightly' was taken from 'alice' (token {token}): it is free once that lets go, in "
        )
        eventually(lambda: "has left" in server.text)
        assert re.search(
            r"was taken from 'alice'.* at the latest, asked for by 127\.0\.0\.1:\d+$", server.text, re.M
        )
        lines = list(server.lines)
    assert [line for line in lines if not LINE.match(line)] == []
    assert {found[2] for line in lines if (found := LINE.match(line))} == {"node-1", "coordinator"}
    assert not any("debuga" in line for line in lines)


def test_with_the_format_json_each_line_is_an_object_with_the_events_name() -> None:
    with running(*SERVE, "--log-format", "json") as server:
        server.wait_for("clients reach it with")
        server.wait_for('"event": "cluster-changed"')
        lines = [json.loads(line) for line in list(server.lines)]
    grave = [line for line in lines if line["level"] != "debug"]
    assert all({"at", "server", "logger", "event", "message"} <= line.keys() for line in grave)
    (ready,) = [line for line in lines if line.get("event") == "ready"]
    (listening,) = [line for line in lines if line.get("event") == "node-listens"]
    assert ready["address"] == listening["address"]
    assert {line["server"] for line in lines} == {"node-1", "coordinator"}
    (changed, *_) = [line for line in lines if line.get("event") == "cluster-changed"]
    (joined,) = [line for line in lines if line.get("event") == "joined"]
    assert changed["cluster"] == joined["cluster"]
