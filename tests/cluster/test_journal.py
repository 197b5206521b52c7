"""Locks that outlive every process: servers with a data directory that are killed, stopped, and started again."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lockring
from lockring.errors import LockringError, Unavailable
from lockring.journal.codec import (
    HEADER_BYTES,
    Record,
    SegmentHeader,
    decode_header,
    decode_positions,
    read_record,
)
from lockring.journal.journal import POSITION_NAME
from lockring.journal.records import Seal
from lockring.net.oneshot import ask_status
from lockring.slots import SLOTS
from tests.cluster.holding import Holders, holders
from tests.cluster.running import Running, running
from tests.cluster.test_processes_life import assert_one_line
from tests.processes import PATIENCE_S, address, eventually, ports_in_a_row

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

MANY = 100_000
CLIENTS = 4
STARTS = 3
START_S_MAX = 2.0 + 18.0
"""Bound of the time from the start of the command to the grant of a free lock.

On an idle machine that is 2 s, which `python -m bench restart` measures. The rest is for a machine that is busy with
other tests. The leases of a life without a journal would take 31.5 s.
"""

WRITERS = 4
"""Threads whose locks are written at the moment of a loss of power."""
CUTS = 6

Command = tuple[str, ...]


def serve(listen: str, data: Path, *more: str) -> Command:
    places = ("--listen", listen, "--coordinator-listen", "127.0.0.1:0", "--data-dir", str(data))
    return "serve", *places, "--no-grpc", "--stabilization", "0.2", *more


def serves_all(*servers: str) -> bool:
    try:
        return sum(ask_status(each, timeout_s=2).serving for each in servers) == SLOTS
    except LockringError:
        return False


def free_lock_s(server: str, began_s: float, process: Running) -> float:
    """Acquire a free lock as soon as the server lets clients in, and return how long that took."""
    while True:
        assert process.popen.poll() is None, process.text
        assert time.monotonic() - began_s < PATIENCE_S, process.text
        try:
            ask_status(server, timeout_s=PATIENCE_S)
        except LockringError:
            time.sleep(0.005)
            continue
        with lockring.Client(server) as client:
            grant = client.lock("free").acquire(timeout=PATIENCE_S)
            took_s = time.monotonic() - began_s
            grant.release()
            return took_s


def assert_all_held(held: Holders, tokens: dict[str, int], server: str, process: Running) -> None:
    """Every lock is held by whom it was, under the same token, and no holder learned of a loss."""
    with lockring.Client(server) as client:

        def all_locks() -> lockring.LockList | None:
            """List the locks once every slot is served: nodes are not back at the same moment, and slots may move."""
            try:
                found = client.locks("held-", timeout=PATIENCE_S)
            except Unavailable:  # no slot is served yet
                return None
            return None if found.unserved_slots else found

        found = eventually(all_locks, lambda: process.text)
    assert {each.name: each.holders[0].fencing_token for each in found} == tokens
    answer = held.ask()
    assert (answer["held"], answer["lost"], answer["tokens"]) == (held.count, [], tokens), process.text


def survives(
    server: str,
    command: Command,
    end: Callable[[Running], None],
    *,
    locks: int,
    starts: int = 1,
    tampers: Callable[[], None] = lambda: None,
) -> str:
    """Hold locks while a server is ended and started again, some times over, and return what the last process said."""
    took_s = []
    with holders(server, clients=CLIENTS, locks_each=locks // CLIENTS) as held:
        with running(*command) as process:
            eventually(lambda: serves_all(*server.split(",")), lambda: process.text)
            tokens = held.answer()["tokens"]
            end(process)
        for _ in range(starts):
            tampers()
            began_s = time.monotonic()
            with running(*command) as process:
                took_s.append(free_lock_s(server.partition(",")[0], began_s, process))
                assert_all_held(held, tokens, server, process)
                end(process)
            assert took_s[-1] < START_S_MAX, process.text
    print(f"{locks} locks: a free lock after " + ", ".join(f"{each:.2f} s" for each in took_s))
    return process.text


def kill(process: Running) -> None:
    process.popen.kill()
    process.wait()


def terminate(process: Running) -> None:
    process.popen.send_signal(signal.SIGTERM)
    assert process.wait() == 0, process.text


# --------------------------------------------------------------------------- the death of every process


def test_a_hundred_thousand_locks_outlive_the_process_that_serves_them(tmp_path: Path) -> None:
    listen = address()
    survives(listen, serve(listen, tmp_path / "data"), kill, locks=MANY, starts=STARTS)


def test_locks_outlive_the_death_of_every_process_of_a_cluster_at_once(tmp_path: Path) -> None:
    port, *more = ports_in_a_row(4)
    nodes = ",".join(f"127.0.0.1:{each}" for each in more)
    command = ("up", "--nodes", "3", "--port", str(port), "--no-grpc", "--data-dir", str(tmp_path / "data"))
    # The system kills the children with their parent.
    survives(nodes, command, kill, locks=MANY, starts=STARTS)


def test_serve_keeps_locks_by_default() -> None:
    listen = address()
    command = ("serve", "--listen", listen, "--coordinator-listen", "127.0.0.1:0", "--no-grpc")
    survives(listen, command, kill, locks=200)


# --------------------------------------------------------------------------- an orderly stop


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_the_last_node_that_is_stopped_keeps_its_locks(tmp_path: Path, durability: str) -> None:
    listen = address()
    command = serve(listen, tmp_path / "data", "--durability", durability)
    text = survives(listen, command, terminate, locks=400, starts=2)
    assert "400 locks are kept in the data directory" in text
    assert "400 locks came back from the journal, and their holders keep them" in text
    assert "end with it" not in text


def test_locks_outlive_an_orderly_stop_of_a_whole_cluster(tmp_path: Path) -> None:
    port, *more = ports_in_a_row(4)
    nodes = ",".join(f"127.0.0.1:{each}" for each in more)
    command = ("up", "--nodes", "3", "--port", str(port), "--no-grpc", "--data-dir", str(tmp_path / "data"))
    survives(nodes, command, terminate, locks=400)


def test_a_lock_that_was_released_just_before_the_stop_is_free_after_it(tmp_path: Path) -> None:
    listen = address()
    with lockring.Client(listen, ttl=30) as client:
        with running(*serve(listen, tmp_path / "data")) as process:
            eventually(lambda: serves_all(listen), lambda: process.text)
            client.lock("x").acquire(timeout=PATIENCE_S).release()
            terminate(process)
        with running(*serve(listen, tmp_path / "data")) as process:
            eventually(lambda: serves_all(listen), lambda: process.text)
            with lockring.Client(listen) as other:
                other.lock("x").acquire(timeout=PATIENCE_S).release()


def test_a_node_without_durability_ends_its_locks_as_before(tmp_path: Path) -> None:
    listen = address()
    command = serve(listen, tmp_path / "data", "--durability", "none")
    with lockring.Client(listen, ttl=30) as client, running(*command) as process:
        eventually(lambda: serves_all(listen), lambda: process.text)
        held = client.lock("x").acquire(timeout=PATIENCE_S)
        assert held.held
        terminate(process)
        assert "the 1 locks that were held here, so they end with it" in process.text
    assert not (tmp_path / "data" / "journal").exists()


# --------------------------------------------------------------------------- a loss of power


def synced_bytes(segment: Path, position: Path) -> int:
    """Return up to where a segment is synced for certain."""
    durable, _ = decode_positions(position.read_bytes())
    data = memoryview(segment.read_bytes())
    header = decode_header(bytes(data[:HEADER_BYTES]))
    assert isinstance(header, SegmentHeader)
    assert durable is not None
    seal, at = Seal(header.salt), HEADER_BYTES
    while isinstance(record := read_record(seal, data, at), Record) and record.ordinal <= durable.ordinal:
        at = record.end
    return at


def test_synced_locks_outlive_a_loss_of_power_that_cuts_the_files(tmp_path: Path) -> None:
    listen, data = address(), tmp_path / "data"
    chance, numbers = random.Random(11), itertools.count()
    unsynced: list[int] = []
    # The client is closed first, which ends the calls that the last kill has cut off.
    with ThreadPoolExecutor() as writers, lockring.Client(listen, ttl=30) as busy:

        def write(is_over: threading.Event) -> None:
            while not is_over.is_set():
                busy.lock(f"busy/{next(numbers)}").acquire(timeout=PATIENCE_S).release()

        def loses_power(process: Running) -> None:
            """Kill the server while several threads write, so that its last bytes are not synced yet."""
            is_over = threading.Event()
            for _ in range(WRITERS):
                writers.submit(write, is_over)
            enough = next(numbers) + 100
            eventually(lambda: next(numbers) > enough)
            kill(process)
            is_over.set()

        def cuts() -> None:
            newest = max((data / "journal").glob("*.log"))
            safe, end = synced_bytes(newest, data / "journal" / POSITION_NAME), newest.stat().st_size
            unsynced.append(end - safe)
            with newest.open("r+b") as file:
                file.truncate(chance.randint(safe, end))

        command = serve(listen, data, "--durability", "disk")
        survives(listen, command, loses_power, locks=400, starts=CUTS, tampers=cuts)
    assert any(unsynced), "every byte was synced at each kill, so that no cut took anything"


# --------------------------------------------------------------------------- directories that do not fit


def test_a_node_whose_directory_was_deleted_makes_it_again_and_keeps_its_locks(tmp_path: Path) -> None:
    data, server, listen = tmp_path / "data", address(), address()
    to, keeps = ("--coordinator", server), ("--data-dir", str(data))
    node = ("node", "--id", "a", "--listen", listen, "--no-grpc", *to, *keeps)
    with (
        running("coordinator", "--listen", server, "--new-cluster"),
        lockring.Client(listen, ttl=20) as client,
    ):
        with running(*node) as process:
            eventually(lambda: serves_all(listen), lambda: process.text)
            held = client.lock("before").acquire(timeout=PATIENCE_S)
            shutil.rmtree(data)
            process.wait_for("was deleted: it is made again, and everything is written again")
            process.wait_for("the journal works again")
            later = client.lock("after").acquire(timeout=PATIENCE_S)
            kill(process)
        with running(*node) as process:
            process.wait_for("2 locks came back from the journal")
            assert held.held
            assert later.held


def test_serve_makes_its_deleted_directory_again_with_state_and_locks(tmp_path: Path) -> None:
    data, listen = tmp_path / "data", address()
    with lockring.Client(listen, ttl=20) as client:
        with running(*serve(listen, data)) as process:
            eventually(lambda: serves_all(listen), lambda: process.text)
            held = client.lock("before").acquire(timeout=PATIENCE_S)
            shutil.rmtree(data)
            process.wait_for("was deleted while it was in use: it was made again, with the newest state")
            mended = re.compile("the store (can be read|works) again")
            eventually(lambda: mended.search(process.text) is not None, lambda: process.text)
            process.wait_for("the journal works again")
            later = client.lock("after").acquire(timeout=PATIENCE_S)
            kill(process)
        with running(*serve(listen, data)) as process:
            process.wait_for("2 locks came back from the journal")
            assert held.held
            assert later.held


def test_a_node_whose_directory_was_moved_away_says_what_to_do_and_goes_on_once_it_is_back(
    tmp_path: Path,
) -> None:
    data, moved, listen = tmp_path / "data", tmp_path / "moved", address()
    with (
        running(*serve(listen, data)) as process,
        lockring.Client(listen, ttl=20) as client,
    ):
        eventually(lambda: serves_all(listen), lambda: process.text)
        data.rename(moved)
        process.wait_for(
            "a deleted one is made again at once, otherwise put it back, or start the node again"
        )
        assert not data.exists(), "the moved one may come back, and must not be older than what was granted"
        moved.rename(data)
        process.wait_for("the journal works again")
        client.lock("x").acquire(timeout=PATIENCE_S).release()


def test_another_owner_and_mode_of_all_files_lose_no_lock(tmp_path: Path) -> None:
    """Kubernetes changes both at each mount of a volume."""
    data = tmp_path / "data"

    def change() -> None:
        for path in [data, *data.rglob("*")]:
            os.chown(path, os.getuid(), os.getgid())
            path.chmod(0o770)

    listen = address()
    survives(listen, serve(listen, data), kill, locks=40, starts=2, tampers=change)


def test_a_second_server_on_the_same_directory_is_refused_with_the_number_of_the_first(
    tmp_path: Path,
) -> None:
    coordinator, data = address(), str(tmp_path / "data")
    with running("coordinator", "--listen", coordinator, "--new-cluster"):
        first_node = ("node", "--id", "a", "--listen", address(), "--coordinator", coordinator, "--no-grpc")
        with running(*first_node, "--data-dir", data) as first:
            first.wait_for("joined cluster")
            other = ("node", "--id", "b", "--listen", address(), "--coordinator", coordinator, "--no-grpc")
            with running(*other, "--data-dir", data) as second:
                assert_one_line(second, 73, data, f"process {first.popen.pid}", "--data-dir")


def test_the_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    coordinator, data = address(), str(tmp_path / "data")
    more = ("--coordinator", coordinator, "--no-grpc", "--data-dir", data)
    with running("coordinator", "--listen", coordinator, "--new-cluster"):
        with running("node", "--id", "a", "--listen", address(), *more) as first:
            first.wait_for("joined cluster")
        with running("node", "--id", "b", "--listen", address(), *more) as second:
            assert_one_line(second, 73, data, "--data-dir")


def test_the_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    one, other, data = address(), address(), str(tmp_path / "data")
    node = ("node", "--id", "a", "--listen", address(), "--no-grpc", "--data-dir", data)
    with (
        running("coordinator", "--listen", one, "--new-cluster"),
        running("coordinator", "--listen", other, "--new-cluster"),
        running("node", "--id", "z", "--listen", address(), "--no-grpc", "--coordinator", other) as settled,
    ):
        settled.wait_for("joined cluster")
        with running(*node, "--coordinator", one) as process:
            process.wait_for("joined cluster")
            eventually(lambda: "4096 slots" in process.text, lambda: process.text)
        with running(*node, "--coordinator", other) as process:
            assert_one_line(process, 78, data, "--data-dir")


def test_a_copy_of_a_directory_is_not_believed_and_its_locks_wait_until_their_leases_have_ended(
    tmp_path: Path,
) -> None:
    listen, data, copy = address(), tmp_path / "data", tmp_path / "copy"
    leases = ("--coordinator-lease", "4", "--backup-lease", "1")  # waited out
    with lockring.Client(listen, ttl=4) as a, lockring.Client(listen, ttl=4) as b:
        with running(*serve(listen, data, *leases)) as process:
            eventually(lambda: serves_all(listen), lambda: process.text)
            held = a.lock("x").acquire(timeout=PATIENCE_S)
            kill(process)
        shutil.copytree(data, copy)
        with running(*serve(listen, copy, *leases)) as process:
            process.wait_for("is a copy")
            grant = b.lock("x").acquire(timeout=PATIENCE_S)
            assert not held.held, "two clients believe to hold the lock"
            assert grant.fencing_token > held.fencing_token
