"""Both kinds of links lose what is cut, and only that, in one direction only, and leave nothing behind.

Three servers and clients, each a process of its own: who is cut off from whom is seen by what arrives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lockring.server.local.children import child_environment
from lockring.testing import Place
from lockring.testing import process as of_cluster
from tests.chaos import links as links_of
from tests.chaos import netns
from tests.chaos.links import Links

pytestmark = pytest.mark.cluster

WHY_NO_NAMESPACES = links_of.why_no_namespaces()
needs_namespaces = pytest.mark.skipif(bool(WHY_NO_NAMESPACES), reason=WHY_NO_NAMESPACES)
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
PROMPT_S = 20.0
"""Bound for what is to arrive."""

SILENT_S = 1.0
"""How long nothing may arrive. This wait does not hope: a slow machine can only make it pass."""

SERVER = """
    import socket, sys, threading
    from lockring.server.lifecycle import die_with_parent
    die_with_parent()
    def serve(sock):
        while data := sock.recv(100):
            print("got", data.decode(), flush=True)
            sock.sendall(data.upper())
    host, _, port = sys.argv[1].rpartition(":")
    listener = socket.create_server((host, int(port)))
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

CLIENT = """
    import socket, sys
    from lockring.server.lifecycle import die_with_parent
    die_with_parent()
    host, _, port = sys.argv[1].rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=60)
    print("ready", flush=True)
    for line in sys.stdin:
        sock.sendall(line.strip().encode())
        print("answer", sock.recv(100).decode(), flush=True)
"""


class Echoes:
    """Servers and clients in some links, and what they have said."""

    def __init__(self, links: Links, directory: Path) -> None:
        self.links = links
        self._directory = directory
        self._servers: dict[str, of_cluster.TestedProcess] = {}
        self._clients: dict[str, subprocess.Popen[str]] = {}

    def pids(self) -> dict[str, int]:
        clients = {name: each.pid for name, each in self._clients.items()}
        return clients | {name: each.pid for name, each in self._servers.items()}

    def serve(self, name: str) -> None:
        place = self.links.place(name)
        command = [sys.executable, "-c", textwrap.dedent(SERVER), place.listen]
        process = of_cluster.TestedProcess(place, command, self._directory / name)
        self._servers[name] = process
        process.spawn()
        self.wait(lambda: "ready" in process.log(), f"{name} is not ready")

    def connect(self, name: str, server: str) -> None:
        self.dial(name, server)
        self.wait(lambda: "ready" in self.said(name), f"{name} has not connected")

    def dial(self, name: str, server: str) -> None:
        """Start a client, and do not wait until it has connected."""
        prefix = self.links.prefix(name)
        command = [*prefix, sys.executable, "-c", textwrap.dedent(CLIENT), self._servers[server].place.public]
        with (self._directory / name).open("w") as output:
            self._clients[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                env=child_environment(),
            )

    def say(self, name: str, word: str) -> None:
        stdin = self._clients[name].stdin
        assert stdin is not None
        stdin.write(word + "\n")
        stdin.flush()

    def said(self, name: str) -> str:
        return (self._directory / name).read_text()

    def wait(self, what: Callable[[], bool], otherwise: str, *, seconds: float = PROMPT_S) -> None:
        assert until(what, seconds), f"{otherwise}: {[(name, self.said(name)) for name in self.pids()]}"

    def arrives(self, name: str, word: str) -> bool:
        return until(lambda: f"got {word}" in self.said(name), PROMPT_S)

    def answered(self, name: str, word: str, *, seconds: float = PROMPT_S) -> bool:
        return until(lambda: f"answer {word.upper()}" in self.said(name), seconds)

    def close(self) -> None:
        for client in self._clients.values():
            client.kill()
            client.communicate()
        for server in self._servers.values():
            server.kill()


def until(what: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes about within a time."""
    end_s = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(
    params=[pytest.param("netns", marks=needs_namespaces), pytest.param("proxy", marks=needs_linux)]
)
def echoes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Echoes]:
    made: list[Echoes] = []
    links = links_of.choose(request.param, lambda: made[0].pids() if made else {})
    try:
        made.append(Echoes(links, tmp_path))
        yield made[0]
    finally:
        made[0].close()
        links.close()


def test_what_one_way_loses_the_other_way_carries(echoes: Echoes) -> None:
    echoes.serve("S")
    echoes.connect("a", "S")
    echoes.say("a", "one")
    assert echoes.answered("a", "one")
    echoes.links.cut("S", "a")
    echoes.say("a", "two")
    assert echoes.arrives("S", "two"), "this direction is not cut"
    assert not echoes.answered("a", "two", seconds=SILENT_S)
    echoes.links.mend("S", "a")
    assert echoes.answered("a", "two"), "what was cut off arrives after the mending"


def test_what_is_cut_off_on_its_way_there_arrives_after_the_mending(echoes: Echoes) -> None:
    echoes.serve("S")
    echoes.connect("a", "S")
    echoes.links.cut("a", "S")
    echoes.say("a", "one")
    assert not until(lambda: "got one" in echoes.said("S"), SILENT_S)
    echoes.links.mend("a", "S")
    assert echoes.answered("a", "one")


def test_a_cut_concerns_one_pair_only(echoes: Echoes) -> None:
    for server in ("S", "T"):
        echoes.serve(server)
    echoes.connect("a", "S")
    echoes.connect("b", "S")
    echoes.links.cut("a", "S")
    echoes.links.cut("S", "a")
    echoes.connect("c", "T")
    for name in ("b", "c"):
        echoes.say(name, name)
        assert echoes.answered(name, name)
    echoes.say("a", "late")
    assert not echoes.answered("a", "late", seconds=SILENT_S)


def test_a_connection_that_is_opened_through_a_cut_carries_nothing(echoes: Echoes) -> None:
    echoes.serve("S")
    echoes.links.cut("a", "S")
    echoes.dial("a", "S")
    echoes.say("a", "one")
    assert not until(lambda: "got one" in echoes.said("S"), SILENT_S)
    echoes.links.mend("a", "S")
    assert echoes.answered("a", "one")


def test_an_isolated_process_is_cut_off_from_every_other_and_no_other_is(echoes: Echoes) -> None:
    for server in ("S", "T"):
        echoes.serve(server)
    echoes.connect("a", "S")
    echoes.connect("b", "S")
    echoes.connect("c", "T")
    echoes.links.cut("T", "c")
    echoes.links.isolate("S")
    echoes.dial("d", "S")
    for name in ("a", "b", "c", "d"):
        echoes.say(name, name)
    assert echoes.arrives("T", "c")
    assert not until(lambda: "got" in echoes.said("S"), SILENT_S)
    echoes.links.rejoin("S")
    for name in ("a", "b", "d"):
        assert echoes.answered(name, name)
    assert not echoes.answered("c", "c", seconds=SILENT_S), "a cut of its own stays"


def test_mending_what_is_whole_changes_nothing(echoes: Echoes) -> None:
    echoes.serve("S")
    echoes.connect("a", "S")
    echoes.links.mend("a", "S")
    echoes.say("a", "one")
    assert echoes.answered("a", "one")


def test_a_server_has_the_same_place_when_asked_again(echoes: Echoes) -> None:
    assert echoes.links.place("S") == echoes.links.place("S")
    assert echoes.links.place("S") != echoes.links.place("T")


# --------------------------------------------------------------------------- namespaces


def namespaces() -> set[str]:
    directory = Path("/run/netns")
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


@needs_namespaces
def test_closing_removes_the_namespaces_of_this_run() -> None:
    before = namespaces()
    links = netns.NetnsLinks()
    links.place("N1")
    links.prefix("c1")
    assert {name.rpartition("-")[2] for name in namespaces() - before} == {netns.SWITCH, "N1", "c1"}
    links.close()
    links.close()
    assert namespaces() == before


@needs_namespaces
def test_leftovers_of_a_killed_run_are_removed_and_those_of_a_running_one_are_not() -> None:
    program = """
        import os, signal, sys
        from tests.chaos.netns import NetnsLinks
        links = NetnsLinks()
        links.place("N1")
        print("made", flush=True)
        if sys.stdin.readline():
            links.close()
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    root = Path(__file__).parents[2]
    runs = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        for _ in range(2)
    ]
    killed, running = runs
    try:
        for run in runs:
            assert run.stdout is not None
            assert run.stdout.readline() == "made\n"
        killed.communicate(timeout=PROMPT_S)
        of_killed, of_running = (f"{netns.PREFIX}{run.pid}-" for run in runs)
        assert any(name.startswith(of_killed) for name in namespaces())
        removed = netns.remove_leftovers()
        assert {name for name in removed if name.startswith(of_killed)} == {
            of_killed + netns.SWITCH,
            of_killed + "N1",
        }
        assert not any(name.startswith(of_killed) for name in namespaces())
        assert of_running + "N1" in namespaces()
        running.communicate("go on\n", timeout=PROMPT_S)
        assert not any(name.startswith(of_running) for name in namespaces())
    finally:
        for run in runs:
            run.kill()
            run.communicate()


@needs_namespaces
def test_the_machine_keeps_its_own_network() -> None:
    before = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    links = netns.NetnsLinks()
    links.place("N1")
    now = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    links.close()
    assert now == before


def test_links_that_cannot_be_had_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(links_of.LinksFailed, match=r"root|Linux"):
        links_of.choose("netns", dict)


@needs_linux
def test_without_the_right_to_make_namespaces_proxies_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    links = links_of.choose("auto", dict)
    assert links.kind == "proxy"
    assert isinstance(links.place("S"), Place)
    links.close()


def test_what_is_forgotten_is_lost_for_good_and_a_new_connection_is_whole(echoes: Echoes) -> None:
    if not echoes.links.forgets:
        pytest.skip("only proxies know single connections")
    echoes.serve("S")
    echoes.connect("a", "S")
    echoes.say("a", "one")
    assert echoes.answered("a", "one")
    echoes.links.forget("S", "a")
    echoes.say("a", "two")
    assert echoes.arrives("S", "two"), "only the other direction is forgotten"
    assert not echoes.answered("a", "two", seconds=SILENT_S)
    echoes.connect("b", "S")
    echoes.say("b", "three")
    assert echoes.answered("b", "three")
