"""The events of a real cluster, from the memories of all of its servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import lockring
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S, eventually

pytestmark = [pytest.mark.cluster]


def run(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "LOCKRING_SERVER": cluster.servers}
    command = [sys.executable, "-m", "lockring", *arguments]
    return subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def following(cluster: LocalCluster, path: Any) -> Iterator[Any]:
    """Run `lockring events --follow`, and give a function that returns what it has printed so far."""
    environ = {**os.environ, "LOCKRING_SERVER": cluster.servers}
    command = [sys.executable, "-m", "lockring", "events", "--follow", "--json"]
    with (
        path.open("wb") as out,
        subprocess.Popen(command, env=environ, stdout=out, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            yield lambda: objects(path.read_text().rpartition("\n")[0])
        finally:
            process.kill()


def test_a_failover_a_break_and_a_drain_are_shown_once_each_and_followed_while_they_happen(
    quick: LocalCluster, tmp_path: Any
) -> None:
    with following(quick, tmp_path / "events") as followed, lockring.Client(quick.servers) as client:
        eventually(lambda: [each for each in followed() if each["kind"] == "leading"])
        grant = client.lock("jobs/1").acquire()
        client.break_lock("jobs/1", grant.fencing_token, force=True)
        eventually(lambda: [each for each in followed() if each["kind"] == "broken"])
        gone = next(node for node in quick.nodes if node != quick.primary_of("jobs/1"))
        left = [node for node in quick.nodes if node != gone]
        quick.kill(gone)
        eventually(lambda: [each for each in followed() if each["kind"] == "failed"])
        quick.wait_until_stable()
        quick.drain(left[0])
        eventually(lambda: [each for each in followed() if each["kind"] == "draining"])
        found = followed()
    by_kind = {
        kind: [each for each in found if each["kind"] == kind] for kind in {each["kind"] for each in found}
    }
    assert sum(each["slots"] for each in by_kind["failover"] if each["from"] == gone) >= 1365
    assert [each["node"] for each in by_kind["failed"]] == [gone]
    assert [each["node"] for each in by_kind["draining"]] == [left[0]]
    (broken,) = by_kind["broken"]
    assert (broken["name"], broken["fencing_token"], broken["reason"]) == (
        "jobs/1",
        grant.fencing_token,
        "forced",
    )
    assert len({json.dumps(each) for each in found}) == len(found)

    done = run(quick, "events", "--prefix", "jobs/", "--kind", "broken,lost", "--json")
    assert done.returncode == 0, done.stderr
    assert [(each["kind"], each["name"]) for each in objects(done.stdout)] == [
        ("broken", "jobs/1"),
        ("lost", "jobs/1"),
    ]
    assert {each["server"] for each in objects(done.stdout)} <= {quick.address_of(node) for node in left}
    text = run(quick, "events", "--limit", "3").stdout
    assert len(text.splitlines()) <= 3
    assert f"node {left[0]} began to drain" in run(quick, "events", "--kind", "draining").stdout


def test_a_server_that_does_not_answer_is_named_and_so_is_a_kind_that_is_not_one(quick: LocalCluster) -> None:
    quick.freeze("N3")
    try:
        done = run(quick, "events", "--kind", "joined")
    finally:
        quick.thaw("N3")
    assert done.returncode == 69
    assert f"events of {quick.address_of('N3')} are missing" in done.stderr
    assert "node N1 joined" in done.stdout
    wrong = run(quick, "events", "--kind", "fail-over")
    assert wrong.returncode == 64
    assert "there is no kind of event 'fail-over'; the kinds are failover, moved" in wrong.stderr
