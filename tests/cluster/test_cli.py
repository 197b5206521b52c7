"""The command line against a real cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

import lockring
from lockring.core.timing import up
from lockring.testing import LocalCluster
from lockring.units import NS_PER_S
from tests.processes import PATIENCE_S, address, eventually, is_running, last_seen_s, written

pytestmark = [pytest.mark.cluster]


class Cli:
    """Runs the command against a cluster, and ends what is left of it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.environ = {**os.environ, "LOCKRING_SERVER": cluster.servers}
        self.started: list[subprocess.Popen[str]] = []
        self._client = lockring.Client(cluster.servers)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        command = [sys.executable, "-m", "lockring", *arguments]
        process = subprocess.Popen(
            command, env=self.environ, text=True, start_new_session=True, **streams, **options
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=PATIENCE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def waiters(self, name: str) -> list[str]:
        """Return the waiters of a lock, in order: asked for without the command, which takes long to start."""
        return [each.owner for each in self._client.describe(name).waiters]

    def close(self) -> None:
        self._client.close()
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def cli(steady: LocalCluster) -> Iterator[Cli]:
    made = Cli(steady)
    yield made
    made.close()


# --------------------------------------------------------------------------- lock


def test_the_reported_token_never_falls_and_no_more_is_left_than_the_ttl(
    cli: Cli, steady: LocalCluster
) -> None:
    with lockring.Client(steady.servers) as client:
        grant = client.lock("told", ttl=16.1).acquire(timeout=PATIENCE_S)
        held = cli.json("describe", "told")
        (holder,) = held["holders"]
        assert holder["ttl_s"] == 16.1
        assert holder["ttl_left_s"] <= 16.1
        info = client.describe("told")
        grant.release()
        free = client.describe("told")
    assert held["fencing_token_last"] == holder["fencing_token"] == grant.fencing_token
    assert cli.json("describe", "told")["fencing_token_last"] >= grant.fencing_token
    assert free.fencing_token_last >= info.fencing_token_last
    assert isinstance(info.change, int)
    assert free.change is None
    assert f"tokens up to {free.fencing_token_last}" in cli.run("describe", "told").stdout


def test_of_two_shells_one_runs_and_the_other_starts_right_after_its_end(cli, tmp_path):
    script = f'echo "begin $0" >> {tmp_path}/log; sleep 0.5; echo "end $0" >> {tmp_path}/log'
    both = [cli.start("lock", "nightly", "--", "sh", "-c", script, name) for name in ("a", "b")]
    assert [each.wait(PATIENCE_S) for each in both] == [0, 0]
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    first, second = lines[0][-1], lines[2][-1]
    assert {first, second} == {"a", "b"}
    assert lines == [f"begin {first}", f"end {first}", f"begin {second}", f"end {second}"]


def test_the_next_one_starts_within_a_second(cli, tmp_path):
    """In one of some rounds: a busy machine may add to any of them, and a wait that is in the code is in all."""
    pauses_s = []
    for number in range(5):
        on, go = tmp_path / f"on{number}", tmp_path / f"go{number}"
        os.mkfifo(go)
        script = f"echo 1 > {on}; read line < {go}; date +%s%N"
        first = cli.start("lock", "relay", "--", "sh", "-c", script)
        written(on)
        second = cli.start("lock", "relay", "--", "date", "+%s%N")
        eventually(lambda: cli.waiters("relay"))
        go.write_text("go\n")
        ended_ns, began_ns = (int(each.communicate(timeout=PATIENCE_S)[0]) for each in (first, second))
        assert ended_ns < began_ns
        pauses_s.append((began_ns - ended_ns) / 1e9)
        if pauses_s[-1] < 1:
            return
    raise AssertionError(f"it took {pauses_s} s")


def test_the_commands_exit_code_is_passed_on(cli):
    assert cli.run("lock", "codes", "--", "sh", "-c", "exit 7").returncode == 7
    assert cli.run("run", "codes", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_lock_that_is_held_is_not_waited_for_with_n(cli, tmp_path):
    cli.start("lock", "busy", "--owner", "the first", "--", "sh", "-c", f"echo 1 > {tmp_path}/on; sleep 60")
    written(tmp_path / "on")
    done = cli.run("lock", "-n", "busy", "--", "true")
    assert done.returncode == 75
    assert done.stderr.startswith("lockring: 'busy' is held by the first")
    began_s = time.monotonic()
    assert cli.run("lock", "-w", "0.7", "-E", "9", "busy", "--", "true").returncode == 9
    assert time.monotonic() - began_s > 0.7
    error = json.loads(cli.run("lock", "-w", "0", "--json", "busy", "--", "true").stderr)
    assert (error["error"], error["name"]) == ("timeout", "busy")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_leaves_no_waiter(cli, tmp_path, number):
    name = f"wait-{number}"
    cli.start("lock", name, "--", "sh", "-c", f"echo 1 > {tmp_path}/on; sleep 60")
    written(tmp_path / "on")
    waiter = cli.start("lock", name, "--", "touch", str(tmp_path / "ran"))
    eventually(lambda: cli.waiters(name))
    waiter.send_signal(number)
    assert waiter.wait(PATIENCE_S) == -number  # 128 + N to a shell
    eventually(lambda: not cli.waiters(name))
    assert not (tmp_path / "ran").exists()


def test_signals_are_forwarded_and_the_lock_is_released_at_the_end(cli, tmp_path):
    script = f"trap 'exit 5' USR1; echo 1 > {tmp_path}/on; while :; do sleep 0.05; done"
    process = cli.start("lock", "forward", "--", "sh", "-c", script)
    written(tmp_path / "on")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE_S) == 5
    assert not cli.json("describe", "forward")["held"]


def test_the_token_is_in_the_environment_and_grows(cli):
    show = ("--", "sh", "-c", 'echo "$LOCKRING_NAME $LOCKRING_OWNER $LOCKRING_TTL $LOCKRING_FENCING_TOKEN"')
    lines = [cli.run("lock", "env", "--owner", "me", "--ttl", "7.5", *show).stdout.split() for _ in range(2)]
    assert [line[:3] for line in lines] == [["env", "me", "7.5"]] * 2
    assert 0 < int(lines[0][3]) < int(lines[1][3])


def test_several_names_are_all_held_with_a_token_each(cli):
    script = 'echo "$LOCKRING_TOKENS"; "$0" -m lockring ls several/ --json'
    done = cli.run("lock", "several/b", "several/a", "--", "sh", "-c", script, sys.executable)
    tokens, listed = (json.loads(line) for line in done.stdout.splitlines())
    assert tokens == {each["name"]: each["holders"][0]["fencing_token"] for each in listed}
    assert set(tokens) == {"several/a", "several/b"}


def test_inside_a_command_another_lock_has_its_own_variables(cli):
    inner = '"$0" -m lockring lock inner -- sh -c \'echo "$LOCKRING_NAME $LOCKRING_TTL $LOCKRING_TOKENS"\''
    done = cli.run("lock", "outer", "--ttl", "5", "--", "sh", "-c", inner, sys.executable)
    name, ttl, tokens = done.stdout.split(maxsplit=2)
    assert (name, ttl, list(json.loads(tokens))) == ("inner", "10", ["inner"])


def test_commands_that_only_read_run_together_and_see_so(cli):
    script = 'echo "$LOCKRING_MODE"; "$0" -m lockring lock -n -s shelf -- sh -c "echo both"'
    done = cli.run("lock", "--shared", "shelf", "--", "sh", "-c", script, sys.executable)
    assert (done.returncode, done.stdout.split()) == (0, ["shared", "both"])
    script = '"$0" -m lockring lock -n shelf -- true; echo $?; "$0" -m lockring describe shelf'
    done = cli.run("lock", "--shared", "shelf", "--owner", "reader", "--", "sh", "-c", script, sys.executable)
    assert done.stdout.splitlines()[0] == "75"
    assert "held by  reader (shared)" in done.stdout
    assert cli.run("lock", "-s", "shelf", "shelf/2", "--", "sh", "-c", "exit 3").returncode == 3
    assert cli.run("lock", "shelf", "--", "sh", "-c", 'echo "$LOCKRING_MODE"').stdout == "exclusive\n"
    holder = cli.start("lock", "-s", "shelf")
    assert json.loads(holder.stdout.readline())["mode"] == "shared"
    assert cli.json("ls", "shelf")[0]["mode"] == "shared"


def test_without_a_command_the_lock_is_held_until_a_signal(cli):
    process = cli.start("lock", "held", "--ttl", "3")
    found = json.loads(process.stdout.readline())
    assert found["name"] == "held"
    assert found["ttl_s"] == 3
    holder = cli.json("describe", "held")["holders"][0]
    assert {key: holder[key] for key in ("owner", "session", "fencing_token")} == {
        key: found[key] for key in ("owner", "session", "fencing_token")
    }
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert not cli.json("describe", "held")["held"]


def test_waiting_verbosely_tells_who_holds_the_lock(cli, tmp_path):
    script = f"echo 1 > {tmp_path}/on; while ! test -e {tmp_path}/go; do sleep 0.05; done"
    cli.start("lock", "told", "--owner", "the holder", "--", "sh", "-c", script)
    written(tmp_path / "on")
    waiter = cli.start("lock", "told", "-v", "--", "true")
    assert "waiting: 'told' is held by the holder" in waiter.stderr.readline()
    (tmp_path / "go").touch()
    assert "acquired 'told'" in waiter.stderr.readline()


# --------------------------------------------------------------------------- loss

STUBBORN = "trap '' TERM; echo $$ > {0}/pid; while :; do sleep 0.05; done"
# One that has ended and is still to be waited for (Z) runs no more.
NEXT = "if grep -q ') [^ZX] ' /proc/$(cat {0}/pid)/stat 2>/dev/null; then echo overlap; else echo alone; fi"


def test_a_broken_lock_ends_the_command_and_exits_with_76(cli, tmp_path):
    script = f"trap 'exit 0' TERM; echo 1 > {tmp_path}/on; while :; do sleep 0.05; done"
    process = cli.start("lock", "broken", "--", "sh", "-c", script)
    written(tmp_path / "on")
    token = cli.json("describe", "broken")["holders"][0]["fencing_token"]
    assert cli.json("break", "broken", "--token", str(token))["fencing_token"] == token
    assert process.wait(PATIENCE_S) == 76
    assert "'broken' was lost" in process.stderr.read()
    eventually(lambda: not cli.json("describe", "broken")["held"])


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_command_is_gone_before_the_lock_is_anothers_if_lockring_is_stopped_or_killed(
    cli, tmp_path, number
):
    name = f"gone-{number}"
    first = cli.start("lock", name, "--ttl", "2", "--", "sh", "-c", STUBBORN.format(tmp_path))
    pid = int(written(tmp_path / "pid"))
    second = cli.start("lock", name, "--", "sh", "-c", NEXT.format(tmp_path))
    eventually(lambda: cli.waiters(name))
    first.send_signal(number)
    assert second.communicate(timeout=PATIENCE_S)[0] == "alone\n"
    assert not is_running(pid)
    if number == signal.SIGSTOP:
        first.send_signal(signal.SIGCONT)
        assert first.wait(PATIENCE_S) == 76


def test_a_killed_lockring_leaves_no_lease_behind_that_protects_nothing(cli, tmp_path):
    first = cli.start(
        "lock", "left", "--ttl", "30", "--", "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 300"
    )
    pid = int(written(tmp_path / "pid"))
    second = cli.start("lock", "left", "-w", "20", "--", "echo", "next")
    eventually(lambda: cli.waiters("left"))
    first.kill()
    # The lease alone would have let it wait for 30 s; the bound is for a busy machine.
    assert second.communicate(timeout=PATIENCE_S)[0] == "next\n"
    assert second.returncode == 0
    assert not is_running(pid)


def test_the_death_of_the_locks_primary_changes_nothing(tmp_path):
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        cli = Cli(cluster)
        script = f"echo 1 > {tmp_path}/on; while ! test -e {tmp_path}/go; do sleep 0.05; done; exit 3"
        first = cli.start("lock", "nightly", "--", "sh", "-c", script)
        written(tmp_path / "on")
        before = cli.json("describe", "nightly")["holders"][0]["fencing_token"]
        second = cli.start("lock", "nightly", "--", "sh", "-c", "echo $LOCKRING_FENCING_TOKEN")
        cluster.kill(cluster.primary_of("nightly"))
        cluster.wait_until_stable()
        eventually(lambda: cli.waiters("nightly"))
        after = cli.json("describe", "nightly")
        assert after["holders"][0]["fencing_token"] == before
        (tmp_path / "go").touch()
        assert first.wait(PATIENCE_S) == 3
        out, _ = second.communicate(timeout=PATIENCE_S)
        assert int(out) > before
        cli.close()


def test_a_cluster_that_is_gone_ends_the_command_before_the_ttl_has_passed(tmp_path):
    with LocalCluster(nodes=2, stabilization_s=0.3) as cluster:
        cli = Cli(cluster)
        process = cli.start("lock", "cut", "--ttl", "3", "--", "sh", "-c", STUBBORN.format(tmp_path))
        pid = int(written(tmp_path / "pid"))
        for name in cluster.nodes:
            cluster.freeze(name)
        frozen_at_s = time.monotonic()
        assert last_seen_s(pid) - frozen_at_s < 3 * 1.05
        assert process.wait(PATIENCE_S) == 76
        assert "'cut'" in process.stderr.read()
        cli.close()


# --------------------------------------------------------------------------- looking and changing


def test_status_shows_members_and_slots(cli, steady):
    found = cli.json("status")
    assert (found["serving"], found["health"], found["slots_served"]) == (True, "serving", 4096)
    assert sum(each["slots_served"] for each in found["members"]) == 4096
    assert [each["id"] for each in found["members"]] == ["N1", "N2", "N3"]
    assert sum(each["slots_primary"] for each in found["members"]) == found["slots"] == 4096
    assert (found["slots_without_primary"], found["slots_without_backup"], found["slots_moving"]) == (0, 0, 0)
    assert found["version_age_s"] > 0
    text = cli.run("status").stdout
    assert "all 4096 slots have a primary and a backup" in text
    assert steady.address_of("coordinator") in text
    assert cli.run("status", "--server", steady.address_of("coordinator")).returncode == 0


def test_ls_searches_page_by_page_over_all_nodes(cli, steady):
    with lockring.Client(steady.servers, owner="page-maker") as client, ExitStack() as stack:
        names = sorted(f"page/{number}" for number in range(25))
        for name in names:
            stack.enter_context(client.lock(name))
        seen, after = [], ""
        while True:
            page = client.find_locks("page/", limit=7, after=after)
            assert page.matched == 25
            assert page.unserved_slots == 0
            seen += [each.lock.name for each in page]
            if page.after is None:
                break
            after = page.after
        assert seen == names
        found = cli.json("ls", "page/", "--limit", "3", "--after", "page/15", "--owner", "PAGE-M", "--held")
        assert [each["name"] for each in found] == ["page/16", "page/17", "page/18"]
        assert [(each["holder_count"], each["waiter_count"]) for each in found] == [(1, 0)] * 3
        done = cli.run("ls", "page/", "--limit", "3")
        assert done.stderr.strip() == "3 of 25 locks are shown; the next ones: --after page/10"
        assert cli.json("ls", "page/", "--waiting") == []
        assert cli.json("ls", "page/", "--text", "/2", "--mode", "shared") == []
        assert len(cli.json("ls", "page/", "--text", "/2")) == 6


def test_ls_lists_by_prefix(cli):
    holders = [cli.start("lock", f"list/{name}") for name in ("b", "a")]
    for each in holders:
        each.stdout.readline()
    assert [each["name"] for each in cli.json("ls", "list/")] == ["list/a", "list/b"]
    assert cli.json("ls", "nothing/") == []
    lines = cli.run("ls", "list/").stdout.splitlines()
    assert lines[0].split() == [
        "NAME",
        "OWNER",
        "MODE",
        "TOKEN",
        "HELD",
        "FOR",
        "TTL",
        "LEFT",
        "WAITERS",
        "PRIMARY",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["list/a", "list/b"]


def test_describe_shows_holder_waiters_and_place(cli, steady):
    holder = cli.start("lock", "shown", "--owner", "one")
    token = json.loads(holder.stdout.readline())["fencing_token"]

    def is_waiting(owners: list[str]) -> bool:
        found: list[str] = cli.waiters("shown")
        return found == owners

    for owners in (["two"], ["two", "three"]):
        cli.start("lock", "shown", "--owner", owners[-1])
        eventually(partial(is_waiting, owners))
    found = cli.json("describe", "shown")
    assert [each["owner"] for each in found["holders"] + found["waiters"]] == ["one", "two", "three"]
    assert (found["primary"], found["backup"]) == (steady.primary_of("shown"), steady.backup_of("shown"))
    assert 0 < found["holders"][0]["ttl_left_s"] <= up(10 * NS_PER_S) / NS_PER_S
    text = cli.run("describe", "shown").stdout
    for part in ("held by  one", f"token     {token}", "1.  two", "2.  three", f"primary {found['primary']}"):
        assert part in text
    assert "held by  - (free" in cli.run("describe", "never held").stdout


def test_watch_follows_a_lock(cli):
    watching = cli.start("watch", "followed", "--json")
    assert json.loads(watching.stdout.readline())["held"] is False
    cli.run("lock", "followed", "--owner", "passer-by", "--", "true")
    held = json.loads(watching.stdout.readline())
    assert held["holders"][0]["owner"] == "passer-by"
    while json.loads(watching.stdout.readline())["held"]:
        continue
    watching.send_signal(signal.SIGINT)
    assert watching.wait(PATIENCE_S) == -signal.SIGINT  # 130 to a shell
    assert watching.stderr.read() == ""


def test_a_wrong_token_breaks_nothing(cli):
    holder = cli.start("lock", "unbroken")
    token = json.loads(holder.stdout.readline())["fencing_token"]
    done = cli.run("break", "unbroken", "--token", str(token + 1))
    assert done.returncode == 1
    assert done.stderr.startswith("lockring: ")
    assert cli.json("describe", "unbroken")["held"]


def test_break_with_force_frees_at_once(cli):
    holder = cli.start("lock", "forced")
    token = json.loads(holder.stdout.readline())["fencing_token"]
    assert cli.json("break", "forced", "--token", str(token), "--force")["freed"] is True
    assert holder.wait(PATIENCE_S) == 76
    assert "'forced' was lost" in holder.stderr.read()


def test_ring_draws_and_lists_the_slots(cli):
    assert len(cli.json("ring")["slots"]) == 4096
    text = cli.run("ring").stdout
    assert all(name in text for name in ("N1", "N2", "N3"))
    assert "\x1b" not in text


def test_drain_empties_a_node_and_loses_no_lock(tmp_path):
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        cli = Cli(cluster)
        holder = cli.start("lock", "kept")
        token = json.loads(holder.stdout.readline())["fencing_token"]
        node = cluster.primary_of("kept")
        assert cli.json("drain", node, "--wait")["drained"] is True
        assert cli.json("describe", "kept")["holders"][0]["fencing_token"] == token
        assert cluster.primary_of("kept") != node
        done = cli.run("drain", "N99")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        cli.close()


# --------------------------------------------------------------------------- trouble

EVERY = [
    ["lock", "x", "--", "true"],
    ["status"],
    ["ls"],
    ["describe", "x"],
    ["watch", "x"],
    ["ring"],
    ["drain", "N1"],
    ["undrain", "N1"],
]


@pytest.mark.parametrize("arguments", EVERY, ids=lambda arguments: arguments[0])
def test_a_server_other_than_lockring_is_reported_in_one_line(cli, arguments):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        stranger = f"127.0.0.1:{listener.getsockname()[1]}"
        done = cli.run(arguments[0], "--server", stranger, "--connect-timeout", "1", *arguments[1:])
        listener.shutdown(socket.SHUT_RDWR)
    assert done.returncode == 69
    assert done.stderr.startswith("lockring: ")
    assert done.stderr.count("\n") == 1
    assert stranger in done.stderr


@pytest.mark.parametrize("arguments", EVERY, ids=lambda arguments: arguments[0])
def test_a_missing_server_is_reported_in_one_line(cli, arguments):
    nobody = address()
    done = cli.run(arguments[0], "--server", nobody, "--connect-timeout", "1", *arguments[1:])
    assert done.returncode == 69
    assert done.stderr.startswith("lockring: ")
    assert done.stderr.count("\n") == 1
    assert nobody in done.stderr


def test_a_ttl_above_the_coordinator_lease_is_refused_naming_the_bound(cli):
    done = cli.run("lock", "long", "--ttl", "31", "--", "true")
    assert done.returncode == 64
    assert "30" in done.stderr


def test_several_names_without_a_command_are_held_and_hinted_at(cli):
    process = cli.start("lock", "hinted/a", "hinted/b")
    assert "to run a command, put -- before it" in process.stderr.readline()
    eventually(lambda: cli.json("describe", "hinted/b")["held"])
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["status"],
        ["describe", "x"],
        ["watch", "x"],
        ["ring"],
        ["groups"],
        ["group", "x"],
        ["lock", "piped"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_output_whose_reader_has_gone_gives_141_for_every_command(cli, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "lockring", *arguments],
        env=cli.environ,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    os.close(writer)
    assert process.returncode == 141
    assert process.stderr in (
        "",
        "lockring: no lock is held or waited for\n",
        "lockring: no group has members\n",
    )
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "lockring", *arguments],
            env=cli.environ,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert process.returncode == 74
    assert process.stderr.endswith("lockring: the output cannot be written: no space left on device\n")
    assert not cli.json("describe", "piped")["held"]


def test_a_caller_that_ignores_the_end_of_children_gets_the_commands_code(cli):
    code = "import signal, subprocess, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); import os; os.execv(sys.argv[1], sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        code,
        sys.executable,
        "-m",
        "lockring",
        "lock",
        "deaf",
        "--",
        "sh",
        "-c",
        "exit 7",
    ]
    done = subprocess.run(
        command, env=cli.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_a_bound_on_a_wait_that_was_not_asked_for_is_refused(cli):
    done = cli.run("drain", "N1", "--timeout", "5")
    assert done.returncode == 64
    assert "--wait" in done.stderr
    assert cli.json("status")["members"][0]["condition"] == "active"


def test_a_group_without_members_is_reported_as_such(cli):
    done = cli.run("group", "nobody-here")
    assert (done.returncode, done.stdout) == (0, "group 'nobody-here' has no members\n")
    assert cli.json("group", "nobody-here", "--owner-of", "")["key_owner"] is None
