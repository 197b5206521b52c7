"""`lockring top` on real terminals: its keys and signals, outages, rights, and all the ways out."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

import lockring
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM, LONG_LEASE_S
from tests.cluster.guarded import Guarded
from tests.cluster.live_screen import LiveScreen, live_screen
from tests.processes import PATIENCE_S, eventually

pytestmark = pytest.mark.cluster

WIDE = "倉庫の鍵" * 12
INTERVAL = ("--interval", "0.5")
ESCAPE, DOWN, END = "\x1b", "\x1b[B", "\x1b[F"
SGR = re.compile(r"\x1b\[[0-9;]*m")


class Held:
    """A cluster in which some locks are held, and one is waited for."""

    def __init__(self, cluster: LocalCluster, client: lockring.Client, waiter: lockring.Client) -> None:
        self.cluster = cluster
        self.servers = cluster.servers
        self.grants = {
            name: client.lock(name, ttl=LONG_LEASE_S).acquire(timeout=PATIENCE_S)
            for name in ("jobs/a", "jobs/busy", "other", WIDE)
        }
        self._waiting = threading.Thread(target=self._wait, args=(waiter,))
        self._waiting.start()
        eventually(lambda: client.describe("jobs/busy").waiters)

    def _wait(self, waiter: lockring.Client) -> None:
        with waiter.lock("jobs/busy").acquire(timeout=PATIENCE_S * 20):
            pass

    def release(self) -> None:
        for each in self.grants.values():
            each.release()
        self._waiting.join(PATIENCE_S)


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    with (
        LocalCluster(nodes=2, **CALM) as cluster,
        lockring.Client(cluster.servers, owner="holder@web-1:1") as client,
        lockring.Client(cluster.servers, owner="waiter@web-2:2") as waiter,
    ):
        made = Held(cluster, client, waiter)
        yield made
        made.release()


def marked(screen: LiveScreen) -> str:
    """Return the row of the selected lock."""
    return next((each for each in screen.rows if each.startswith("> ")), "")


def run_top(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lockring", "top", *arguments]
    return subprocess.run(
        command,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_it_shows_the_cluster_and_each_key_works(held: Held) -> None:
    with live_screen("top", *INTERVAL, servers=held.servers) as screen:
        screen.sees(
            "Every slot is served", "leader ", "N1 ", "N2 ", "jobs/busy", "holder@web-1:1", "joined", "q quit"
        )
        assert screen.is_raw
        assert screen.is_taken
        assert "jobs/busy" in marked(screen), "a lock with waiters comes first"
        assert str(held.grants["jobs/busy"].fencing_token) in marked(screen)
        screen.type("\r")
        screen.sees("lock 'jobs/busy'", "waiter@web-2:2", "Held by holder@web-1:1")
        screen.type(ESCAPE)
        screen.sees("> jobs/busy")
        screen.type(DOWN)
        screen.sees("> jobs/a")
        screen.type("ss")
        screen.sees("[by name]")
        screen.type(END)
        screen.sees("> 倉庫")
        screen.type("/jobs/\r")
        screen.sees("'jobs/…'", without="other")
        assert "jobs/a" in screen.text
        screen.type("/none\x15x y\r")
        screen.sees("no lock whose name begins with 'x y'")
        screen.type(ESCAPE)
        screen.sees("other")
        screen.type("?")
        screen.sees("page up, page down")
        screen.type("?")
        screen.sees("other")
        screen.type(" ")
        screen.sees("PAUSED for ")
        screen.type(" ")
        screen.sees("Every slot", without="PAUSED")
        screen.type("q")
        assert screen.ends() == 0
        assert not screen.is_raw
        assert not screen.is_taken


def test_it_goes_on_by_itself_and_stops_in_a_pause(held: Held) -> None:
    with (
        live_screen("top", *INTERVAL, servers=held.servers) as screen,
        lockring.Client(held.servers, owner="late") as client,
    ):
        screen.sees("jobs/busy")
        late = client.lock("late-1").acquire(timeout=PATIENCE_S)
        screen.sees("late-1")
        screen.type(" ")
        screen.sees("PAUSED")
        late.release()
        screen.sees("PAUSED for 1.", "late-1")
        screen.sees("PAUSED for 2.", "late-1")
        screen.type(" ")
        screen.sees("Every slot", without="late-1")


def test_it_follows_the_size_of_the_terminal(held: Held) -> None:
    with live_screen("top", *INTERVAL, servers=held.servers, size=(80, 24)) as screen:
        screen.sees("jobs/busy", "q quit")
        for columns, lines in ((40, 12), (132, 50), (20, 6)):
            screen.resize(columns, lines)

            def fits(columns: int = columns, lines: int = lines) -> bool:
                screen.reads(0.1)
                rows = screen.rows
                return len(rows) == lines and all(cell_len(each) <= columns for each in rows)

            eventually(fits, lambda: screen.text)
            screen.sees("Every slot")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_the_terminal_is_given_back(held: Held, number: signal.Signals) -> None:
    with live_screen("top", servers=held.servers) as screen:
        screen.sees("jobs/busy")
        if number == signal.SIGINT:
            screen.type("\x03")
        else:
            screen.signal(number)
        assert screen.ends() == -number
        assert not screen.is_taken
        assert not screen.is_raw


def test_a_signal_ends_it_though_the_terminal_takes_no_output(held: Held) -> None:
    with live_screen("top", *INTERVAL, servers=held.servers, size=(300, 90)) as screen:
        screen.sees("jobs/busy")
        terminal, screen.terminal = screen.terminal, -1  # from here on, nothing is read
        for columns in range(200, 300):  # each is a reason to draw, until the terminal is full
            screen.terminal = terminal
            screen.resize(columns, 90)
            screen.terminal = -1
        screen.signal(signal.SIGTERM)
        assert screen.ends() == -signal.SIGTERM
        os.close(terminal)


def test_it_stops_and_goes_on_in_the_foreground(held: Held) -> None:
    shell = "set -m; LOCKRING top --interval 0.5; stty -a | grep -o ' -*icanon'; echo stopped; read line; fg; echo ended $?"
    with live_screen(servers=held.servers, shell=shell) as screen:
        screen.sees("jobs/busy", "q quit")
        screen.type("\x1a")
        screen.sees("stopped")
        assert not screen.is_taken
        assert " icanon" in screen.sent
        screen.type("\n")
        eventually(lambda: screen.reads(0.1) and screen.is_taken, lambda: screen.text)
        screen.sees("jobs/busy", "q quit", without="stopped")
        assert screen.is_raw
        screen.type("q")
        screen.sees("ended 0")
        assert not screen.is_taken


def test_it_takes_the_terminal_again_after_a_stop_that_it_cannot_see(held: Held) -> None:
    with live_screen("top", servers=held.servers) as screen:
        screen.sees("jobs/busy")
        screen.signal(signal.SIGSTOP)
        os.waitpid(screen.pid, os.WUNTRACED)
        before = len(screen.sent)
        screen.signal(signal.SIGCONT)
        eventually(
            lambda: screen.reads(0.1) and "\x1b[?1049h" in screen.sent[before:], lambda: screen.sent[before:]
        )
        screen.sees("jobs/busy")
        screen.type("q")
        assert screen.ends() == 0


def test_it_ends_with_its_terminal(held: Held) -> None:
    with live_screen("top", *INTERVAL, servers=held.servers) as screen:
        screen.sees("jobs/busy")
        screen.hang_up()
        assert screen.ends() == -signal.SIGHUP


def test_it_ends_with_its_terminal_though_the_hangup_is_ignored(held: Held) -> None:
    shell = "trap '' HUP; exec LOCKRING top --interval 0.5"
    with live_screen(servers=held.servers, shell=shell) as screen:
        screen.sees("jobs/busy")
        screen.hang_up()
        assert screen.ends() in (0, 74)


def test_colour_is_left_out_where_it_is_not_wanted(held: Held) -> None:
    with live_screen("top", servers=held.servers) as screen:
        screen.sees("> jobs/busy")
        assert SGR.search(screen.sent)
    with live_screen("top", servers=held.servers, NO_COLOR="1") as screen:
        screen.sees("> jobs/busy")
        assert not SGR.search(screen.sent)
        screen.type("q")
        assert screen.ends() == 0


@pytest.mark.parametrize("arguments", [("--once",), ()])
def test_a_dumb_terminal_gets_one_picture_without_escapes(held: Held, arguments: tuple[str, ...]) -> None:
    with live_screen("top", *arguments, servers=held.servers, TERM="dumb") as screen:
        assert screen.ends() == 0
        assert "\x1b" not in screen.sent
        assert "jobs/busy" in screen.sent


def test_an_output_that_is_not_a_terminal_gets_one_picture(held: Held) -> None:
    done = run_top("--prefix", "jobs/", "--sort", "name", LOCKRING_SERVER=held.servers)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "Every slot is served and has a backup."
    assert [each.split()[0] for each in lines if each.startswith("jobs/")] == ["jobs/a", "jobs/busy"]
    assert "other" not in done.stdout


def test_json_has_the_read_model(held: Held) -> None:
    done = run_top("--once", "--json", LOCKRING_SERVER=held.servers)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert [each["node"] for each in found["cluster"]["members"]] == ["N1", "N2"]
    assert found["coordinator"]["answers"] is True
    first = found["locks"]["rows"][0]
    assert (first["name"], first["waiters"]) == ("jobs/busy", 1)
    assert first["holder"]["fencing_token"] == held.grants["jobs/busy"].fencing_token
    assert found["missing"] == []


def test_a_reader_that_goes_ends_it_quietly(held: Held) -> None:
    command = f"{sys.executable} -m lockring top --once | head -n 1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "LOCKRING_SERVER": held.servers}
    done = subprocess.run(
        ["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    first, code = done.stdout.splitlines()
    assert first.startswith("Every slot")
    assert code in ("0", "141")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments", [("--interval", "0.4"), ("--interval", "61"), ("--sort", "size"), ("--prefix", "x" * 1025)]
)
def test_values_that_make_no_sense_are_refused(arguments: tuple[str, ...]) -> None:
    done = run_top(*arguments)
    assert done.returncode == 64
    assert done.stdout == ""
    assert arguments[0] in done.stderr or "lock name" in done.stderr


def test_without_a_server_one_picture_fails_and_a_live_one_waits(held: Held) -> None:
    with LocalCluster(nodes=1, **CALM) as cluster:
        servers = cluster.servers
        for each in (*cluster.nodes, COORDINATOR):
            cluster.kill(each)
        done = run_top("--once", LOCKRING_SERVER=servers)
        assert done.returncode == 69
        assert done.stdout == ""
        with live_screen("top", *INTERVAL, servers=servers) as screen:
            screen.sees("NO ANSWER for ")
            screen.type("q")
            assert screen.ends() == 0


def test_it_stays_through_an_outage_and_goes_on_by_itself(quick: LocalCluster) -> None:
    with (
        lockring.Client(quick.servers, owner="holder") as client,
        live_screen("top", *INTERVAL, servers=quick.servers, size=(120, 40)) as screen,
    ):
        kept = client.lock("kept", ttl=LONG_LEASE_S).acquire(timeout=PATIENCE_S)
        screen.sees("kept", "Every slot is served and has a backup")
        quick.kill(COORDINATOR)
        screen.sees(f"Coordinator {quick.address_of(COORDINATOR)} has not answered for ")
        assert "kept" in screen.text
        quick.restart(COORDINATOR)
        screen.sees("Every slot is served and has a backup", without="has not answered")
        victim = next(each for each in quick.nodes if each != quick.primary_of("kept"))
        quick.freeze(victim)
        screen.sees(f"Node {victim} has not answered for ")
        screen.sees("Every slot is served", "kept", without="has not answered")  # it counts as failed
        quick.thaw(victim)
        quick.wait_until_stable()
        screen.sees("Every slot is served and has a backup", f"{victim} ")
        for each in (*quick.nodes, COORDINATOR):
            quick.freeze(each)
        screen.sees("NO ANSWER for ", "kept")
        for each in (*quick.nodes, COORDINATOR):
            quick.thaw(each)
        screen.sees("Every slot is served and has a backup", without="NO ANSWER")
        screen.type("q")
        assert screen.ends() == 0
        kept.release()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    access = AccessSettings(
        auth="enforcing", acl_file=str(directory / "acl.toml"), audit_log=str(directory / "audit.log")
    )
    cluster = LocalCluster(nodes=2, tls=True, access=access, client_auth="optional", **CALM)
    made = Guarded(cluster, directory)
    with cluster:
        yield made


def shown_by(guarded: Guarded, identity: str) -> tuple[str, ...]:
    """Return the flags by which an identity shows itself."""
    ca = str(guarded.cluster.certificates.directory / "ca.pem")
    return (
        "--server",
        guarded.cluster.servers,
        "--ca",
        ca,
        "--token-file",
        str(guarded.token_file(identity)),
    )


def test_a_viewer_sees_the_locks_that_it_may_read_and_which_right_is_missing(guarded: Guarded) -> None:
    with guarded.client("test") as admin:
        mine = admin.lock("jobs/x").acquire()
        secret = admin.lock("secret/plan").acquire()
        with live_screen("top", *INTERVAL, *shown_by(guarded, "web-2"), size=(160, 30)) as screen:
            screen.sees(
                "The cluster's state cannot be shown", "The cluster cannot be shown: ", "read", "jobs/x"
            )
            assert "secret" not in screen.text
            screen.type("\r")
            screen.sees("lock 'jobs/x'", "Held by")
            screen.type("q")
            assert screen.ends() == 0
        with live_screen("top", *INTERVAL, *shown_by(guarded, "test"), size=(160, 30)) as screen:
            screen.sees("Every slot is served", "leader ", "jobs/x", "secret/plan")
        mine.release()
        secret.release()


def test_a_viewer_that_may_see_nothing_is_refused(guarded: Guarded) -> None:
    with live_screen("top", *shown_by(guarded, "idle")) as screen:
        assert screen.ends() == 77
        assert not screen.is_taken
        assert not screen.is_raw
        assert "read" in screen.sent.rpartition("\x1b")[2]
    done = run_top("--once", "--json", *shown_by(guarded, "idle"))
    assert done.returncode == 77
    assert json.loads(done.stderr)["right"] == "read"
    assert done.stdout == ""


def test_a_token_file_that_is_away_for_a_moment_does_not_end_it(guarded: Guarded) -> None:
    flags = shown_by(guarded, "web-2")
    with guarded.client("test") as admin:
        lock = admin.lock("jobs/y").acquire()
        with live_screen("top", *INTERVAL, *flags, size=(160, 30)) as screen:
            screen.sees("jobs/y")
            guarded.token_file("web-2").unlink()
            screen.sees("NO ANSWER for ", "jobs/y")
            guarded.token_file("web-2")  # writes it again
            screen.sees("jobs/y", without="NO ANSWER")
            screen.type("q")
            assert screen.ends() == 0
        lock.release()
    guarded.token_file("web-2").unlink()
    done = run_top("--once", *flags)
    assert done.returncode == 64
    assert "web-2.token" in done.stderr
