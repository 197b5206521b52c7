"""A server without a journal that is started again, with and without knowledge of the locks that it granted before.

With one, its locks come back: see `test_journal`.
While one client believes in its lock, no other gets it, however the server was ended and wherever its state was kept.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import lockring
import lockring.aio
from lockring.net.oneshot import ask_state
from lockring.store.sqlite import DATABASE_NAME
from tests.cluster.test_processes_life import Running, assert_one_line, running, serves
from tests.processes import PATIENCE_S, address, eventually, ports_in_a_row

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LEASE_S = 10.0
"""Coordinator lease of the servers here, where it can be chosen, and TTL of the locks.

It is waited out, and outlasts the pause of a busy machine between a renewal and the end of a server.
"""
LEASES = ("--coordinator-lease", f"{LEASE_S:g}", "--stabilization", "0.2")
PATIENT_S = 2 * PATIENCE_S
"""Bound for a lock to be granted after a restart that waits for the longest lease that there is by default."""


@contextmanager
def all_of(*commands: tuple[str, ...]) -> Iterator[list[Running]]:
    """Processes that are one server to their clients; a coordinator comes first, and is ended last."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(*each)) for each in commands]


def end(processes: list[Running], number: signal.Signals) -> None:
    for process in reversed(processes):
        process.popen.send_signal(number)
        process.wait()


def restart_while_held(
    listen: str,
    commands: Callable[[bool], tuple[tuple[str, ...], ...]],
    number: signal.Signals,
    *,
    ttl_s: float = LEASE_S,
) -> str:
    """Let A hold a lock while its server is ended and started again, and let B wait for it.

    Args:
        listen: where clients reach the server.
        commands: what runs it, given whether it is the first time.
        number: how it is ended.
        ttl_s: of A's lock.

    Returns:
        The output of the second server.
    """
    with lockring.Client(listen, ttl=ttl_s) as a, lockring.Client(listen, ttl=ttl_s) as b:
        with all_of(*commands(True)) as first:
            eventually(lambda: serves(listen.partition(",")[0]), lambda: first[0].text)
            held = a.lock("x").acquire(timeout=PATIENCE_S)
            end(first, number)
        assert held.held
        with all_of(*commands(False)) as second:
            grant = b.lock("x").acquire(timeout=PATIENT_S)
            assert not held.held, "two clients believe to hold the lock"
            assert grant.held
            with pytest.raises(lockring.LockLost):
                held.check()
            return "\n".join(each.text for each in second)


ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])


def serve(listen: str, *more: str) -> tuple[str, ...]:
    places = ("--listen", listen, "--coordinator-listen", "127.0.0.1:0")
    return "serve", *places, "--no-grpc", "--durability", "none", *LEASES, *more


@ENDS
def test_serve_without_a_journal_grants_no_lock_that_is_still_held_from_before_its_restart(
    number: signal.Signals,
) -> None:
    listen = address()
    restart_while_held(listen, lambda first: (serve(listen),), number)


@ENDS
def test_serve_in_memory_waits_the_leases_out_and_says_so(number: signal.Signals) -> None:
    listen = address()
    text = restart_while_held(
        listen,
        lambda first: (serve(listen, "--in-memory", *(("--new-cluster",) if first else ())),),
        number,
    )
    assert "nothing is known of an earlier cluster: no lock is granted for 10.5 s" in text
    assert "--new-cluster" in text


@ENDS
def test_up_without_a_journal_grants_no_lock_that_is_still_held_from_before_its_restart(
    number: signal.Signals,
) -> None:
    port, *more = ports_in_a_row(3)
    nodes = ",".join(f"127.0.0.1:{each}" for each in more)
    command = ("up", "--nodes", "2", "--port", str(port), "--no-grpc", "--durability", "none")
    restart_while_held(nodes, lambda first: (command,), number, ttl_s=10)


@ENDS
def test_a_coordinator_without_a_store_and_its_nodes_wait_the_leases_out(number: signal.Signals) -> None:
    coordinator, listen = address(), address()

    def commands(first: bool) -> tuple[tuple[str, ...], ...]:
        new = ("--new-cluster",) if first else ()
        return (
            ("coordinator", "--listen", coordinator, *LEASES, *new),
            ("node", "--id", "N1", "--listen", listen, "--coordinator", coordinator, "--no-grpc"),
        )

    text = restart_while_held(listen, commands, number)
    assert "kept in memory only" in text
    assert "--data-dir" in text


def test_a_first_start_waits_for_nothing_and_says_what_it_takes_for_granted() -> None:
    listen = address()
    with running(*serve(listen)) as started:
        started.wait_for("4096 of 4096 slots served")
        assert "which is new: a new cluster that does not wait" in started.text
        assert os.environ["XDG_STATE_HOME"] + f"/lockring/serve-{listen.partition(':')[2]}" in started.text


def test_ports_that_the_system_chooses_make_a_new_cluster_in_memory() -> None:
    command = (
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--coordinator-listen",
        "127.0.0.1:0",
        "--no-grpc",
        *LEASES,
    )
    with running(*command) as started:
        started.wait_for("4096 of 4096 slots served")
        assert "this is a new cluster" in started.text
        assert "kept in memory only" in started.text


def test_the_state_directory_of_a_service_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen = address()
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}:/elsewhere")
    with running(*serve(listen)) as started:
        started.wait_for("4096 of 4096 slots served")
    assert (tmp_path / f"serve-{listen.partition(':')[2]}" / DATABASE_NAME).exists()


@pytest.mark.parametrize("command", ["serve", "up"])
def test_a_default_directory_that_cannot_be_made_ends_the_server_and_names_the_choices(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    port = ports_in_a_row(4, with_calls=True)[0]
    where = ("--listen", f"127.0.0.1:{port}", "--coordinator-listen", "127.0.0.1:0")
    with running(command, *(where if command == "serve" else ("--port", str(port)))) as process:
        assert_one_line(process, 73, str(tmp_path / "file"), "--data-dir DIR", "--in-memory")


def test_two_servers_on_one_directory_are_refused(tmp_path: Path) -> None:
    one, other = address(), address()
    with running(*serve(one, "--data-dir", str(tmp_path / "data"))) as first:
        first.wait_for("coordinator listens on")
        with running(*serve(other, "--data-dir", str(tmp_path / "data"))) as second:
            assert_one_line(second, 73, "in use by another coordinator", "--data-dir")


def test_the_directory_of_another_command_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    data, port = tmp_path / "data", ports_in_a_row(4)[0]
    with running("up", "--nodes", "1", "--no-grpc", "--port", str(port), "--data-dir", str(data)) as process:
        process.wait_for("Ctrl-C ends everything")
    before = sorted(data.rglob("*"))
    assert data / "N1" / "journal" in before
    for arguments in (serve(address()), ("coordinator",), ("node", "--id", "N1")):
        with running(*arguments, "--data-dir", str(data)) as process:
            assert_one_line(process, 73, f"{data} is that of lockring up", "--data-dir")
    with running(*serve(address()), "--data-dir", str(data / "N1")) as process:
        assert_one_line(process, 73, "lockring node: start that command on it with --id N1", "--data-dir")
    assert sorted(data.rglob("*")) == before


def test_a_directory_that_has_something_else_is_not_called_empty(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with running(*serve(address(), "--data-dir", str(tmp_path))) as process:
        process.wait_for(
            f"{tmp_path} existed before and has no cluster state beside journal, so its state may have been lost"
        )


def test_an_empty_directory_that_was_there_waits_and_says_why_and_how_to_go_on(tmp_path: Path) -> None:
    listen = address()
    with running(*serve(listen, "--data-dir", str(tmp_path))) as process:
        process.wait_for(f"{tmp_path} existed before and is empty, so its state may have been lost")
        process.wait_for("no lock is granted for 10.5 s")
        assert "--new-cluster" in process.text
        process.wait_for("joined cluster")
        eventually(lambda: "unknown what was held" in ask_state(listen).note, lambda: process.text)
        assert "; it takes another" in ask_state(listen).note, "a node tells what its coordinator waits for"
        with lockring.Client(listen, ttl=LEASE_S) as client:
            with pytest.raises(lockring.Unavailable, match="it is unknown what was held before this start"):
                client.lock("x").acquire(timeout=1)
            client.lock("x").acquire(timeout=PATIENCE_S).release()
    (tmp_path / DATABASE_NAME).unlink()
    for leftover in tmp_path.glob(f"{DATABASE_NAME}-*"):
        leftover.unlink()
    with running(*serve(address(), "--data-dir", str(tmp_path), "--new-cluster")) as process:
        process.wait_for("which was empty: a new cluster, as --new-cluster says")
        process.wait_for("4096 of 4096 slots served")


def test_new_cluster_does_not_forget_a_past_that_is_known(tmp_path: Path) -> None:
    listen = address()
    text = restart_while_held(
        listen,
        lambda first: (serve(listen, "--data-dir", str(tmp_path / "data"), "--new-cluster"),),
        signal.SIGKILL,
    )
    assert "--new-cluster has no effect" in text
    assert str(tmp_path / "data") in text


# --------------------------------------------------------------------------- another cluster under the same address


def test_a_client_whose_server_was_replaced_knows_at_once_and_goes_on_without_being_started_again() -> None:
    listen = address()
    command = serve(listen, "--in-memory", "--new-cluster")
    reasons: list[str] = []
    with lockring.Client(listen, ttl=LEASE_S) as client, lockring.Client(listen, ttl=LEASE_S) as other:
        with running(*command) as first:
            eventually(lambda: serves(listen), lambda: first.text)
            held = client.lock("x").acquire(timeout=PATIENCE_S)
            held.on_lost(lambda lost: reasons.append(lost.reason))
            tokens: list[int] = []

            def wait() -> None:
                with other.lock("x") as grant:
                    tokens.append(grant.fencing_token)

            waiting = threading.Thread(target=wait)
            waiting.start()
            eventually(lambda: client.describe("x").waiters, lambda: "a waiter")
        with running(*command) as second:
            eventually(lambda: reasons, lambda: second.text)
            assert reasons == ["other-cluster"]
            with pytest.raises(lockring.LockLost, match="belong to another cluster"):
                held.check()
            waiting.join(PATIENCE_S)
            assert tokens, "what waited waits at the new server"
            client.lock("y").acquire(timeout=PATIENCE_S).release()


def test_an_asyncio_client_whose_server_was_replaced_knows_at_once_and_goes_on() -> None:
    listen = address()
    command = serve(listen, "--in-memory", "--new-cluster")

    async def story() -> None:
        async with lockring.aio.Client(listen, ttl=LEASE_S) as client:
            lost: asyncio.Future[lockring.LockLost] = asyncio.get_running_loop().create_future()
            with running(*command):
                held = await client.lock("x").acquire(timeout=PATIENCE_S)
                held.on_lost(lost.set_result)
                member = await client.group("g").join()
            with running(*command):
                assert (await asyncio.wait_for(lost, PATIENCE_S)).reason == "other-cluster"
                assert not held.held
                with pytest.raises(lockring.LockLost, match="belong to another cluster"):
                    member.check()
                async with await client.lock("x").acquire(timeout=PATIENCE_S):
                    await (await client.group("g").join()).leave()

    asyncio.run(story())


# --------------------------------------------------------------------------- an orderly stop


@pytest.mark.parametrize("command", ["serve", "up"])
def test_after_an_orderly_stop_with_nothing_held_a_start_waits_for_nothing(command: str) -> None:
    line: tuple[str, ...]
    if command == "serve":
        listen = address()
        # A lease that is longer than the test has patience for.
        line = ("serve", "--listen", listen, "--coordinator-listen", "127.0.0.1:0", "--no-grpc")
        line = (*line, "--coordinator-lease", "600", "--stabilization", "0.2")
    else:
        port, first, _ = ports_in_a_row(3)
        listen = f"127.0.0.1:{first}"
        line = ("up", "--nodes", "2", "--port", str(port), "--no-grpc")
    for _ in range(2):
        with running(*line) as process:
            eventually(lambda: serves(listen), lambda process=process: process.text)  # type: ignore[misc]
            assert "are not served" not in process.text
            with lockring.Client(listen) as client:
                client.lock("x").acquire(timeout=PATIENCE_S).release()
            end([process], signal.SIGTERM)


def test_a_store_that_was_put_back_from_a_copy_is_waited_for(tmp_path: Path) -> None:
    listen, data = address(), tmp_path / "data"
    command = serve(listen, "--data-dir", str(data))
    with running(*command) as process:
        eventually(lambda: serves(listen), lambda: process.text)
        end([process], signal.SIGTERM)
    stopped = (data / DATABASE_NAME).read_bytes()
    with lockring.Client(listen, ttl=LEASE_S) as a, lockring.Client(listen, ttl=LEASE_S) as b:
        with running(*command) as process:
            eventually(lambda: serves(listen), lambda: process.text)
            held = a.lock("x").acquire(timeout=PATIENCE_S)
            end([process], signal.SIGKILL)
        for leftover in data.glob(f"{DATABASE_NAME}*"):
            leftover.unlink()
        (data / DATABASE_NAME).write_bytes(stopped)
        with running(*command):
            grant = b.lock("x").acquire(timeout=PATIENCE_S)
            assert not held.held
            grant.release()
