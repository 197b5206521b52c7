"""How real processes start, fail to start, leave, and come back."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from lockring.errors import LockringError
from lockring.ids import NodeId
from lockring.net.oneshot import ask_state
from lockring.protocol import Acquire, GrantReply, Welcome
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.running import Running, running
from tests.cluster.wire import Wire
from tests.processes import PATIENCE_S, address, children_of, eventually, is_running, ports_in_a_row

pytestmark = pytest.mark.cluster


def serves(server: str, *, with_backups: bool = False) -> bool:
    try:
        state = ask_state(server, timeout_s=2).state
    except LockringError:
        return False
    return all(slot.primary and (slot.backup or not with_backups) for slot in state.slots)


def assert_one_line(process: Running, code: int, *parts: str) -> None:
    """The process ended with this code, and its last line says why; nowhere is there a traceback."""
    assert process.wait() == code, process.text
    for part in parts:
        assert part in process.lines[-1]
    assert "Traceback" not in process.text
    assert sum("error" in line for line in process.lines) <= 1


# --------------------------------------------------------------------------- failing to start


@pytest.mark.parametrize("role", ["coordinator", "node"])
def test_a_taken_port_is_named(role: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        more = ["--id", "N1"] if role == "node" else []
        with running(role, "--listen", where, *more) as process:
            assert_one_line(process, 69, where, "already taken")


def test_an_address_of_another_machine_is_refused() -> None:
    with running("coordinator", "--listen", "192.0.2.1:0", "--insecure") as process:
        assert_one_line(process, 69, "192.0.2.1", "no such address")


def test_an_unknown_host_is_refused() -> None:
    with running("coordinator", "--listen", "no-such-host.invalid:9500") as process:
        assert_one_line(process, 69, "no-such-host.invalid")


def test_a_data_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with running("coordinator", "--listen", address(), "--data-dir", str(tmp_path / "file")) as process:
        assert_one_line(process, 73, str(tmp_path / "file"))


def test_a_second_coordinator_on_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    with running("coordinator", "--listen", address(), "--data-dir", str(tmp_path / "data")) as first:
        first.wait_for(" listens ")
        with running("coordinator", "--listen", address(), "--data-dir", str(tmp_path / "data")) as second:
            assert_one_line(second, 73, str(tmp_path / "data"))


def test_a_node_that_is_given_a_node_for_a_coordinator_ends() -> None:
    where = address()
    with (
        running("serve", "--listen", where, "--coordinator-listen", "127.0.0.1:0") as first,
        running("node", "--id", "N2", "--listen", address(), "--coordinator", where) as second,
    ):
        first.wait_for(" listens ")
        assert_one_line(second, 78, where, "not a coordinator")


def test_a_node_ends_where_its_coordinator_is_something_else_entirely() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        where = f"127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with running("node", "--id", "N1", "--listen", address(), "--coordinator", where) as process:
            assert_one_line(process, 69, where, "not a lockring server")
        thread.join(PATIENCE_S)


# --------------------------------------------------------------------------- waiting


def test_a_node_waits_for_its_coordinator_says_so_and_then_joins() -> None:
    coordinator, node = address(), address()
    with running("node", "--id", "N1", "--listen", node, "--coordinator", coordinator) as waiting:
        waiting.wait_for(f"waiting for the coordinator at {coordinator}")
        assert "waiting for the coordinator" in ask_state(node).note
        with running("coordinator", "--new-cluster", "--listen", coordinator, "--stabilization", "0.2"):
            waiting.wait_for("joined cluster")
            eventually(lambda: serves(node), lambda: waiting.text)
            assert ask_state(node).note == ""


def test_a_node_tries_several_coordinators_in_turn() -> None:
    coordinator, node = address(), address()
    with (
        running("coordinator", "--new-cluster", "--listen", coordinator, "--stabilization", "0.2"),
        running(
            "node", "--id", "N1", "--listen", node, "--coordinator", f"127.0.0.1:1,{coordinator}"
        ) as process,
    ):
        process.wait_for("joined cluster")


def test_signals_end_a_node_that_never_joined_at_once() -> None:
    with running("node", "--id", "N1", "--listen", address(), "--coordinator", address()) as process:
        process.wait_for("waiting for the coordinator")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == 0


# --------------------------------------------------------------------------- in a cluster


def test_a_second_node_of_the_same_id_ends_and_the_first_goes_on(calm: LocalCluster) -> None:
    coordinator = calm.address_of(COORDINATOR)
    with running("node", "--id", "N1", "--listen", address(), "--coordinator", coordinator) as second:
        assert_one_line(second, 78, "N1 is running already")
    assert calm.is_running("N1")
    calm.wait_until_stable(timeout_s=PATIENCE_S)


def test_sigterm_moves_everything_away_before_the_node_leaves(calm: LocalCluster) -> None:
    calm.terminate("N1")
    assert calm.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0
    assert "drained: nothing is left on this node" in calm.log_of("N1")
    assert calm.wait_until_stable(timeout_s=PATIENCE_S).members.keys() == {"N2", "N3"}
    for name in ("N2", "N3"):
        assert "which failed" not in calm.log_of(name), "nothing was taken over: all of it was moved"


def test_a_second_signal_ends_a_draining_node_at_once(calm: LocalCluster) -> None:
    calm.kill(COORDINATOR)  # so that the drain cannot come to an end
    calm.terminate("N1")
    eventually(lambda: "draining" in calm.log_of("N1"), calm.logs)
    assert calm.is_running("N1")
    calm.terminate("N1")
    assert calm.wait_for_exit("N1", timeout_s=PATIENCE_S) == 0


def test_a_drain_that_does_not_come_to_an_end_is_given_up_and_says_what_is_left() -> None:
    coordinator, node = address(), address()
    with (
        running("coordinator", "--new-cluster", "--listen", coordinator, "--stabilization", "0.2") as first,
        running(
            "node", "--id", "N1", "--listen", node, "--coordinator", coordinator, "--drain-timeout", "1"
        ) as second,
    ):
        eventually(lambda: serves(node), lambda: second.text)
        first.popen.kill()
        second.wait_for("waiting for the coordinator")
        second.popen.send_signal(signal.SIGTERM)
        assert second.wait() == 75
        assert "not drained in time; this node still serves 4096 slots" in second.text


def test_a_killed_node_is_replaced_and_comes_back_as_another_life(quick: LocalCluster) -> None:
    before = quick.state().members[NodeId("N2")].replica
    quick.kill("N2")
    assert quick.wait_until_stable(timeout_s=PATIENCE_S).members.keys() == {"N1", "N3"}
    quick.restart("N2")
    after = quick.wait_until_stable(timeout_s=PATIENCE_S).members[NodeId("N2")].replica
    assert after.incarnation > before.incarnation


def test_a_frozen_node_is_replaced_and_taken_in_again_when_it_goes_on(quick: LocalCluster) -> None:
    quick.freeze("N3")
    quick.wait_until_stable(timeout_s=PATIENCE_S)
    assert not any(slot.primary and slot.primary.node == "N3" for slot in quick.state().slots)
    quick.thaw("N3")
    quick.wait_until_stable(timeout_s=PATIENCE_S)
    assert any(slot.primary and slot.primary.node == "N3" for slot in quick.state().slots)


def test_a_restarted_coordinator_goes_on_with_higher_versions(calm: LocalCluster) -> None:
    before = calm.state()
    calm.restart(COORDINATOR)
    after = calm.wait_until_stable(timeout_s=PATIENCE_S)
    assert after.version > before.version
    assert after.cluster == before.cluster
    assert [slot.primary for slot in after.slots] == [slot.primary for slot in before.slots]


def test_nodes_serve_while_the_coordinator_is_away(calm: LocalCluster) -> None:
    calm.kill(COORDINATOR)
    lock = "still served"
    with Wire(calm.address_of(calm.primary_of(lock))) as wire:
        assert isinstance(wire.greet(), Welcome)
        wire.send(Acquire(1, "session", 1_000, "me", 1, lock, wait_ms=0))
        assert isinstance(wire.read(), GrantReply)


def test_clients_of_a_coordinator_are_pushed_new_routes(quick: LocalCluster) -> None:
    with Wire(quick.address_of(COORDINATOR)) as wire:
        assert isinstance(wire.greet(), Welcome)
        assert len(wire.read_routes().members) == 3
        quick.kill("N1")
        quick.wait_until_stable(timeout_s=PATIENCE_S)
        routes = wire.read_routes()
        while len(routes.members) != 2:
            routes = wire.read_routes()
    assert sorted(node for node, _, _ in routes.members) == ["N2", "N3"]


# --------------------------------------------------------------------------- serve and up


def test_serve_is_a_whole_cluster_and_takes_further_nodes() -> None:
    listen, coordinator, more = address(), address(), address()
    with running(
        "serve", "--listen", listen, "--coordinator-listen", coordinator, "--stabilization", "0.2"
    ) as both:
        eventually(lambda: serves(listen), lambda: both.text)
        with running("node", "--id", "N2", "--listen", more, "--coordinator", coordinator) as second:
            eventually(lambda: serves(listen, with_backups=True), lambda: second.text)
            both.popen.send_signal(signal.SIGINT)  # while there is a node that can take over what it has
            assert both.wait() == 0
        assert "Traceback" not in both.text


def test_up_starts_everything_restarts_what_dies_and_ends_everything_on_ctrl_c() -> None:
    first, *_ = ports_in_a_row(3, with_calls=True)
    with running("up", "--nodes", "2", "--port", str(first)) as up:
        up.wait_for("Ctrl-C ends everything")
        assert f"LOCKRING_SERVER=127.0.0.1:{first + 1},127.0.0.1:{first + 2}" in up.text
        assert "N1 │" in up.text
        children = children_of(up.popen.pid)
        assert len(children) == 3
        os.kill(children[-1], signal.SIGKILL)
        up.wait_for("was killed by SIGKILL; restarting it")
        eventually(lambda: len(children_of(up.popen.pid)) == 3, lambda: "the restart")
        children = children_of(up.popen.pid)
        up.popen.send_signal(signal.SIGINT)
        assert up.wait() == 0
        assert not any(is_running(child) for child in children)
        assert "Traceback" not in up.text


def test_up_says_which_port_is_taken() -> None:
    first, *_ = ports_in_a_row(3, with_calls=True)
    taken = socket.create_server(("127.0.0.1", first + 1))
    with taken, running("up", "--nodes", "2", "--port", str(first)) as up:
        assert_one_line(up, 69, f"127.0.0.1:{first + 1} (N1)", "--port")


def test_nothing_outlives_a_supervisor_that_was_killed() -> None:
    with running("up", "--nodes", "1", "--port", "0") as up:
        up.wait_for("Ctrl-C ends everything")
        children = children_of(up.popen.pid)
        assert len(children) == 2
        os.kill(children[0], signal.SIGSTOP)  # not even one that could not notice
        up.popen.kill()
        eventually(lambda: not any(is_running(child) for child in children), lambda: f"the end of {children}")
