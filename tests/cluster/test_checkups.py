"""`lockring doctor`, `status --check` and `watch --prefix` on a real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lockring
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.guarded import guarded
from tests.cluster.running import running
from tests.processes import PATIENCE_S, address, eventually

pytestmark = [pytest.mark.cluster]


def run(servers: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lockring", *arguments],
        env={**os.environ, "LOCKRING_SERVER": servers, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def checks(done: subprocess.CompletedProcess[str], code: int) -> dict[tuple[str, str | None], dict[str, Any]]:
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] == (code == 0)
    return {(each["check"], each["subject"]): each for each in found["checks"]}


@pytest.fixture
def doors() -> Iterator[LocalCluster]:
    with LocalCluster(
        nodes=2, grpc=True, http=True, stabilization_s=0.3, backup_lease_s=15.0, member_lease_s=30.0
    ) as cluster:
        yield cluster


def test_the_doctor_reaches_every_server_on_every_port_and_finds_the_one_that_does_not_answer(
    doors: LocalCluster,
) -> None:
    found = checks(run(doors.servers, "doctor", "--json"), 0)
    servers = {doors.address_of(each) for each in (COORDINATOR, *doors.nodes)}
    assert {subject for check, subject in found if check == "lock port"} == servers
    assert {subject for check, subject in found if check == "clock"} == servers
    assert {subject for check, subject in found if check == "gRPC port"} == set(doors.nodes)
    for name in (COORDINATOR, *doors.nodes):
        http = found["HTTP port", doors.address_of(name)]
        assert http["level"] == "ok", http
        assert http["text"].startswith(f"{doors.http_address_of(name)}: /livez and /readyz answer in ")
    assert not [each for each in found.values() if each["level"] == "bad"]
    assert found["versions", None]["level"] == "ok"
    assert found["slots", None]["text"] == "all 4096 slots are served"
    (lock,) = [each for (check, _), each in found.items() if check == "lock"]
    assert lock["text"].startswith("acquired in ")
    assert lock["text"].rpartition("released in ")[2].endswith(" ms")

    doors.freeze("N2")
    found = checks(run(doors.servers, "doctor", "--json"), 1)
    doors.thaw("N2")
    assert found["lock port", doors.address_of("N2")]["level"] == "bad"
    assert found["lock port", doors.address_of("N1")]["level"] != "bad"
    assert found["gRPC port", "N2"]["level"] == "bad"
    assert "does not answer" in found["gRPC port", "N2"]["text"]


def test_the_doctor_says_that_nothing_can_be_reached() -> None:
    done = run(address(), "doctor")
    assert done.returncode == 1
    assert done.stdout.startswith("bad   reach        ")
    assert "1 check found something wrong" in done.stdout


def test_the_doctor_names_the_days_of_certificates_and_the_rights_of_the_asker(tmp_path: Path) -> None:
    with guarded(tmp_path, nodes=1, client_auth="optional", http=True) as cluster:

        def doctor(who: str, *more: str) -> subprocess.CompletedProcess[str]:
            environ = {"LOCKRING_CA": cluster.bare.ca, "LOCKRING_TOKEN_FILE": str(cluster.token_file(who))}
            return run(cluster.cluster.servers, "doctor", "--json", *more, **environ)

        found = checks(doctor("test"), 0)
        days = [each for (check, _), each in found.items() if check == "certificate"]
        assert len(days) >= 2
        assert all(each["text"].endswith(" days") for each in days)
        http = [each for (check, _), each in found.items() if check == "HTTP port"]
        assert len(http) == 2
        for each in http:
            assert "/livez and /readyz answer in " in each["text"]
            assert "; its certificate ends in " in each["text"]
            assert each["text"].endswith(" days")
        assert "you are token test" in found["rights", None]["text"]
        found = checks(doctor("web-2", "--lock", "jobs/doctor"), 0)
        assert found["rights", None]["text"].endswith("'jobs/doctor': read, acquire")
        assert found["lock", "jobs/doctor"]["level"] != "bad"
        assert found["slots", None]["level"] == "warn"
        found = checks(doctor("web-2"), 0)
        (lock,) = [each for (check, _), each in found.items() if check == "lock"]
        assert (lock["level"], lock["advice"]) == ("warn", "name a lock that you may acquire with --lock")


def test_the_doctor_warns_of_http_that_is_off_and_finds_the_one_port_of_two_servers() -> None:
    listen, leader, place = address(), address(), address()
    where = ("--listen", listen, "--coordinator-listen", leader, "--in-memory", "--new-cluster", "--no-grpc")

    def http_of(flag: str, *places: str) -> dict[str, str]:
        with running("serve", *where, flag, *places) as process:
            process.wait_for("further nodes join with")
            eventually(lambda: run(listen, "status", "--check").returncode == 0)
            for each in places:
                # The first answer takes its time on a busy machine, and the doctor's patience ends.
                with urllib.request.urlopen(f"http://{each}/livez", timeout=PATIENCE_S) as answer:
                    assert answer.status == 200
            found = checks(run(listen, "doctor", "--json"), 0)
            return {
                str(subject): f"{each['level']} {each['text']}".partition(" answer in ")[0]
                for (check, subject), each in found.items()
                if check == "HTTP port"
            }

    off = "warn HTTP is off, so that probes and monitoring have nothing to ask"
    assert http_of("--no-http") == dict.fromkeys((leader, listen), off)
    on = f"ok {place}: /livez and /readyz"
    assert http_of("--http-listen", place) == dict.fromkeys((leader, listen), on)


def test_one_line_says_whether_all_is_well(doors: LocalCluster) -> None:
    good = run(doors.servers, "status", "--check")
    assert good.returncode == 0, good.stdout
    assert good.stdout.startswith("LOCKRING OK - 4096 of 4096 slots served by 2 nodes | slots_served=4096 ")
    doors.freeze("N2")
    bad = run(doors.servers, "status", "--check")
    as_json = run(doors.servers, "status", "--check", "--json")
    doors.thaw("N2")
    assert (bad.returncode, as_json.returncode) == (1, 1)
    assert bad.stdout.startswith(("LOCKRING CRITICAL - N2 at ", "LOCKRING WARNING - "))
    assert len(bad.stdout.splitlines()) == 1
    assert json.loads(as_json.stdout)["health"] != "serving"
    none = run(address(), "status", "--check")
    assert none.returncode == 1
    assert none.stdout.startswith("LOCKRING CRITICAL - ")


def test_all_locks_of_a_prefix_are_followed_and_no_others(standing: LocalCluster, tmp_path: Path) -> None:
    path = tmp_path / "out"
    command = [sys.executable, "-m", "lockring", "watch", "--prefix", "watched/", "--json"]
    environ = {**os.environ, "LOCKRING_SERVER": standing.servers}

    def lines() -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    with (
        path.open("w") as out,
        lockring.Client(standing.servers, owner="me") as client,
        subprocess.Popen(command, env=environ, stdout=out) as process,
    ):
        with client.lock("watched/1"), client.lock("other"), client.lock("watched/2"):
            eventually(
                lambda: {"watched/1", "watched/2"} <= {each["name"] for each in lines()}, path.read_text
            )
        with client.lock("watched/1") as grant:  # for a moment only, and still seen
            pass
        eventually(
            lambda: any(
                event["kind"] == "granted" and event["fencing_token"] == grant.fencing_token
                for each in lines()
                for event in each["events"]
            ),
            path.read_text,
        )
        process.send_signal(signal.SIGINT)
    assert {each["name"] for each in lines()} == {"watched/1", "watched/2"}
    assert not any(each["gap"] for each in lines())


def test_a_watch_needs_a_name_or_a_prefix_and_not_both(standing: LocalCluster) -> None:
    for arguments in ((), ("x", "--prefix", "y")):
        done = run(standing.servers, "watch", *arguments)
        assert done.returncode == 64
        assert "name a lock, or the start of the names of several with --prefix" in done.stderr
