"""Servers that are started with something wrong: one clear line, and the exit code that the page of commands names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.addresses import PORT_MAX
from tests.cluster.running import Running, running
from tests.processes import ports_in_a_row

pytestmark = pytest.mark.cluster

SERVERS = {
    "serve": ("serve", "--in-memory", "--new-cluster", "--coordinator-listen", "127.0.0.1:0"),
    "coordinator": ("coordinator", "--new-cluster"),
    "node": ("node", "--id", "N1"),
}
NO_HOST = "no.such.host.invalid"
GONE = "/gone/for/good"
TLS = [f"--{side}-{part}" for side in ("tls", "peer-tls") for part in ("cert", "key", "ca")]
COMMON = {
    "a port that is none": (["--listen", "127.0.0.1:99999"], 64, "expected HOST:PORT"),
    "an address that is none": (["--listen", "nonsense"], 64, "expected HOST:PORT"),
    "a host that is unknown": (["--listen", f"{NO_HOST}:0"], 69, f"cannot listen on {NO_HOST}:0: "),
    "another machine's host": (["--listen", "192.0.2.77:0", "--insecure"], 69, "has no such address"),
    "a settings file that is gone": (["--config", GONE], 64, f"{GONE}: cannot be read"),
    "rights that are gone": (["--auth", "enforcing", "--acl-file", GONE], 78, f"{GONE} cannot be read"),
    "an audit log that cannot be": (["--audit-log", f"{GONE}/log"], 78, f"{GONE}/log cannot be written"),
    "files of TLS that are gone": ([word for flag in TLS for word in (flag, GONE)], 78, f"{GONE} cannot be read"),
}  # fmt: skip


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def assert_ends(server: Running, code: int, words: str) -> None:
    """Check the exit code, and that one line, the last one of an error, says this. Warnings may come before it."""
    assert server.wait() == code, server.text
    errors = [line for line in server.lines if " warning " not in line and " info " not in line]
    (line,) = errors
    assert words in line
    assert "Traceback" not in server.text


@pytest.mark.parametrize("what", COMMON)
@pytest.mark.parametrize("server", SERVERS)
def test_a_server_with_wrong_input_says_in_a_line_what_is_wrong(server: str, what: str) -> None:
    flags, code, words = COMMON[what]
    listen = [] if "--listen" in flags else ["--listen", "127.0.0.1:0"]
    assert_ends(Running(*SERVERS[server], *listen, *flags), code, words)


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_whose_port_is_taken_says_so(server: str, taken: int) -> None:
    place = f"127.0.0.1:{taken}"
    words = f"cannot listen on {place}: the port is already taken by another process"
    assert_ends(Running(*SERVERS[server], "--listen", place), 69, words)


UP = {
    "a host that is unknown": (["--host", NO_HOST], 69, f"cannot listen on {NO_HOST}: "),
    "such a host with TLS": (["--tls", "--host", NO_HOST, "--port", "0"], 69, f"cannot listen on {NO_HOST}: "),
    "that and a port": (["--tls", "--host", NO_HOST], 69, f"cannot listen on {NO_HOST}:9500 (coordinator): "),
    "another machine's host": (["--host", "192.0.2.77", "--insecure"], 69, "this machine has no such address; choose"),
    "a host with a port": (["--host", "127.0.0.1:9500"], 64, "expected a host or an address without a port"),
    "a host in brackets": (["--host", "[::1]"], 64, "expected a host or an address without a port"),
    "no host": (["--host", ""], 64, "expected a host or an address without a port"),
    "a port that is none": (["--port", "70000"], 64, f"expected a whole number from 0 to {PORT_MAX}"),
    "a directory that cannot be": (["--port", "0", "--data-dir", "/proc/none"], 73, "/proc/none cannot be made"),
    "files of TLS that are gone": ([word for flag in TLS for word in (flag, GONE)], 78, f"{GONE} cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", UP)
def test_a_local_cluster_with_wrong_input_says_in_a_line_what_is_wrong(what: str, tmp_path: Path) -> None:
    flags, code, words = UP[what]
    port = [] if "--port" in flags or "--host" in flags else ["--port", "0"]
    kept = [] if "--data-dir" in flags else ["--in-memory", "--new-cluster"]
    assert_ends(Running("up", "--nodes", "1", *port, *kept, *flags), code, words)


def test_a_local_cluster_whose_port_is_taken_says_of_whom_it_was_to_be(taken: int) -> None:
    up = Running("up", "--nodes", "1", "--in-memory", "--port", str(taken))
    assert_ends(up, 69, f"cannot listen on 127.0.0.1:{taken} (coordinator): the port is already taken")


def test_a_local_cluster_with_a_token_file_that_is_gone_starts_nothing() -> None:
    up = Running(
        *("up", "--nodes", "1", "--in-memory", "--port", "0"),
        within=("env", f"LOCKRING_TOKEN_FILE={GONE}"),
    )
    assert_ends(up, 78, f"the token file {GONE} cannot be read")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--listen", "127.0.0.1:9500"], "127.0.0.1:9500 is both --listen and --coordinator-listen"),
        (["--listen", "127.0.0.1:9400"], "127.0.0.1:9500 is both --coordinator-listen and the gRPC port"),
        (["--grpc-listen", "127.0.0.1:9501"], "127.0.0.1:9501 is both --listen and --grpc-listen"),
    ],
)
def test_one_port_for_two_purposes_is_refused(flags: list[str], words: str) -> None:
    assert_ends(Running("serve", "--in-memory", *flags), 64, words)


@pytest.mark.parametrize("server", ["serve", "coordinator", "node"])
def test_a_second_server_on_a_data_directory_is_refused(server: str, tmp_path: Path) -> None:
    words = [word for word in SERVERS[server] if word != "--in-memory"]
    command = (*words, "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"))
    with running(*command) as first:
        first.wait_for(" listens ")
        assert_ends(Running(*command), 73, "is in use by another")


@pytest.mark.parametrize("variable", ["HOME", "STATE_DIRECTORY"])
@pytest.mark.parametrize("server", ["serve", "up"])
def test_a_default_directory_that_cannot_be_made_is_named(server: str, variable: str) -> None:
    first = ports_in_a_row(2)[0]
    ports = (
        ["--listen", f"127.0.0.1:{first}"] if server == "serve" else ["--nodes", "1", "--port", str(first)]
    )
    refused = Running(
        server, *ports, "--no-grpc", within=("env", "-u", "XDG_STATE_HOME", f"{variable}=/proc/none")
    )
    assert_ends(refused, 73, "the default data directory /proc/none/")


def test_an_empty_variable_counts_as_none() -> None:
    with running(
        *SERVERS["coordinator"], "--listen", "127.0.0.1:0",
        within=("env", "LOCKRING_STORE=", "LOCKRING_DATA_DIR=", "LOCKRING_ADVERTISE="),
    ) as server:  # fmt: skip
        server.wait_for("coordinator listens on")
