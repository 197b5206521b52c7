"""`lockring why` on real clusters: for each reason, a sentence that is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lockring
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.guarded import guarded
from tests.processes import PATIENCE_S, eventually

pytestmark = [pytest.mark.cluster]


class Asker:
    """Runs `lockring why` against some servers."""

    def __init__(self, servers: str, **environ: str) -> None:
        self.environ = {**os.environ, "LOCKRING_SERVER": servers, **environ}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lockring", "why", *arguments]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def __call__(self, name: str, *, code: int = 0) -> dict[str, Any]:
        done = self.run(name, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def until(self, name: str, reason: str) -> dict[str, Any]:
        """Ask until the reason is this one."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            done = self.run(name, "--json")
            if done.stdout:
                found.append(json.loads(done.stdout))
            return bool(found) and found[-1]["reason"] == reason

        eventually(is_there, lambda: f"{reason} instead of {found[-1:]}")
        return found[-1]


@pytest.fixture
def ask(standing: LocalCluster) -> Asker:
    return Asker(standing.servers)


@pytest.fixture
def first(standing: LocalCluster) -> Iterator[lockring.Client]:
    with lockring.Client(standing.servers, owner="first") as client:
        yield client


@contextmanager
def waiting(cluster: LocalCluster, owner: str, *, lock: str, exclusive: bool = True) -> Iterator[None]:
    """Let a client wait for a lock, until the end of the context."""
    with lockring.Client(cluster.servers, owner=owner) as client, lockring.Client(cluster.servers) as looker:
        wanted = client.lock(lock) if exclusive else client.rwlock(lock).read()

        def wait() -> None:
            try:
                wanted.acquire()
            except lockring.LockringError:
                return  # the client was closed

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: owner in [each.owner for each in looker.describe(lock).waiters])
        try:
            yield
        finally:
            client.close()
            thread.join(PATIENCE_S)


def test_a_held_lock_names_its_holder_with_process_and_last_renewal(
    standing: LocalCluster, ask: Asker, first: lockring.Client
) -> None:
    with first.lock("why/held") as grant:
        found = ask("why/held")
        assert found["reason"] == "held"
        assert found["sentence"].startswith("'why/held' is held by first for ")
        assert found["sentence"].endswith(f" (token {grant.fencing_token})")
        (holder,) = found["lock"]["holders"]
        assert (holder["pid"], holder["broken"], holder["away_s"]) == (os.getpid(), False, None)
        assert 0 <= holder["renewed_s"] <= 10
        assert f"look at process {os.getpid()} on " in found["advice"]
        assert f"lockring break why/held --token {grant.fencing_token}" in found["advice"]
        text = ask.run("why/held").stdout
        assert text.startswith("'why/held' is held by first for ")
        assert f"process {os.getpid()} on {holder['host']}" in text
        assert "last renewal " in text
        assert "do       wait, or look at " in text


def test_a_holder_that_died_is_named_while_its_lease_runs(standing: LocalCluster, ask: Asker) -> None:
    command = [
        sys.executable,
        "-m",
        "lockring",
        "lock",
        "--ttl",
        "28",
        "--owner",
        "gone",
        "--hold",
        "why/gone",
    ]
    with subprocess.Popen(command, env=ask.environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    found = ask.until("why/gone", "holder-gone")
    assert found["sentence"].startswith("'why/gone' is still held by gone for ")
    assert "whose connection has been gone for " in found["sentence"]
    (holder,) = found["lock"]["holders"]
    assert (holder["pid"], holder["away_s"] > 0) == (process.pid, True)
    assert holder["ttl_left_s"] < 28


def test_waiters_ahead_are_counted_and_the_first_is_named(
    standing: LocalCluster, ask: Asker, first: lockring.Client
) -> None:
    with first.lock("why/queue"), waiting(standing, "second", lock="why/queue"):
        found = ask("why/queue")
        assert found["reason"] == "waiters"
        assert "is held by first for " in found["sentence"]
        assert "and 1 client waits for it before a new one, the first second for " in found["sentence"]
        assert "queue    1. second" in ask.run("why/queue").stdout


def test_readers_before_a_writer_are_named_with_it(
    standing: LocalCluster, ask: Asker, first: lockring.Client
) -> None:
    with first.rwlock("why/rw").read(), waiting(standing, "writer", lock="why/rw"):
        found = ask("why/rw")
        assert found["reason"] == "readers"
        assert "is held by 1 reader, the first of them first for " in found["sentence"]
        assert "and the writer writer has waited for them for " in found["sentence"]


def test_a_broken_lease_is_named_until_its_holder_lets_go(standing: LocalCluster, ask: Asker) -> None:
    command = [
        sys.executable,
        "-m",
        "lockring",
        "lock",
        "--ttl",
        "28",
        "--owner",
        "stuck",
        "--hold",
        "why/broken",
    ]
    with subprocess.Popen(command, env=ask.environ, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        token = json.loads(process.stdout.readline())["fencing_token"]
        process.send_signal(signal.SIGSTOP)  # it neither renews nor lets go
        with lockring.Client(standing.servers) as operator:
            operator.break_lock("why/broken", token)
        found = ask("why/broken")
        process.send_signal(signal.SIGKILL)
    assert found["reason"] == "broken"
    assert found["sentence"].startswith("the lease of stuck for ")
    assert "on 'why/broken' was broken by an operator" in found["sentence"]
    assert [each["kind"] for each in found["events"]][-1] == "broken"


def test_a_mistyped_name_leads_to_the_lock_that_is_in_use(ask: Asker, first: lockring.Client) -> None:
    with first.lock("why/nightly"):
        found = ask("why/nigthly")
    assert found["reason"] == "wrong-name"
    assert found["similar"] == ["why/nightly"]
    assert (
        "'why/nigthly' is free, and no client waits for it, but 'why/nightly' is in use" in found["sentence"]
    )
    assert found["advice"] == "check the name: lockring why why/nightly"


def test_a_free_lock_is_free_and_says_what_happened_to_it_last(ask: Asker, first: lockring.Client) -> None:
    grant = first.lock("why/unused-for-now").acquire()
    first.break_lock("why/unused-for-now", grant.fencing_token, force=True)
    found = ask("why/unused-for-now")
    assert found["reason"] == "free"
    assert found["sentence"] == "'why/unused-for-now' is free: no client holds it or waits for it"
    assert [each["kind"] for each in found["events"]][-2:] == ["broken", "lost"]


def test_a_lock_on_a_node_that_is_drained_says_so() -> None:
    with LocalCluster(nodes=1, stabilization_s=3, backup_lease_s=15.0, member_lease_s=30.0) as cluster:
        other = cluster.add_node()
        eventually(lambda: other in cluster.state().members)
        cluster.freeze(other)  # so that nothing can move to it
        cluster.drain("N1")
        ask = Asker(cluster.servers)
        found = ask.until("x", "draining")
        assert found["sentence"].startswith("'x' is free; its node N1 is draining, with ")
        with lockring.Client(cluster.servers, owner="first") as client, client.lock("x"):
            found = ask("x")
            assert found["reason"] == "held"
            assert found["remarks"][0].startswith("its node N1 is draining, with ")
        cluster.thaw(other)


def test_a_node_that_lost_the_coordinator_and_its_lease_says_so() -> None:
    with LocalCluster(nodes=1, coordinator_lease_s=4.0) as cluster:
        ask = Asker(cluster.servers)
        cluster.kill(COORDINATOR)
        found = ask.until("x", "no-coordinator")
        assert found["sentence"].startswith(
            "no client can acquire 'x': node N1, which has it, has been without the"
        )
        assert found["sentence"].endswith("and its lease is over")
        assert found["error"] == "unavailable"
        assert any("the coordinator does not answer" in each for each in found["remarks"])
        assert [each["kind"] for each in found["events"]] == ["assigned"]


def test_a_slot_without_a_primary_is_named() -> None:
    with LocalCluster(nodes=1) as cluster:
        ask = Asker(cluster.address_of(COORDINATOR))
        cluster.terminate("N1")
        cluster.wait_for_exit("N1")
        found = ask.until("x", "no-primary")
        assert found["sentence"] == "no client can acquire 'x': no node serves slot 1667, to which it belongs"
        cluster.restart("N1")
        assert ask.until("x", "free")["lock"]["primary"] == "N1"


def test_a_caller_without_the_right_is_told_which_one_is_missing(tmp_path: Path) -> None:
    with guarded(tmp_path, nodes=1, client_auth="optional") as cluster:
        cluster.give("reader", "read *")

        def asker(who: str) -> Asker:
            return Asker(
                cluster.cluster.servers,
                LOCKRING_CA=cluster.bare.ca,
                LOCKRING_TOKEN_FILE=str(cluster.token_file(who)),
            )

        eventually(lambda: asker("reader").run("x").returncode == 0)
        with cluster.client("test", owner="first") as client, client.lock("secret/x"):
            found = asker("reader")("secret/x")
            assert found["reason"] == "no-right"
            assert found["sentence"] == "token reader may not acquire 'secret/x', whether or not it is held"
            assert found["rights"] == ["read"]
            assert found["remarks"][0].startswith("'secret/x' is held by first for ")
            found = asker("web-2")("secret/x", code=77)
        assert (found["reason"], found["lock"]) == ("no-right", None)
        assert found["sentence"].startswith("token web-2 may not read 'secret/x': ")
        assert 'the rule "read secret/x"' in found["advice"]
        assert found["events"] == []
