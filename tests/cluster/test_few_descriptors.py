"""A server that may open few files: it takes what it can get, and says what it needs where that is too little."""

from __future__ import annotations

import pytest

from lockring import exits
from tests.cluster.running import running

pytestmark = pytest.mark.cluster

COORDINATOR = ("coordinator", "--listen", "127.0.0.1:0")
NODE = ("node", "--id", "n", "--listen", "127.0.0.1:0", "--coordinator", "127.0.0.1:1", "--no-grpc")
SERVE = ("serve", "--listen", "127.0.0.1:0", "--coordinator-listen", "127.0.0.1:0", "--no-grpc")


def limited(files: int, *, only_soft: bool = False) -> tuple[str, ...]:
    return ("sh", "-c", f'ulimit {"-S " if only_soft else ""}-n {files} && exec "$@"', "sh")


@pytest.mark.parametrize(("command", "needed"), [(COORDINATOR, 256), (NODE, 256), (SERVE, 512)])
def test_a_server_that_may_open_too_few_files_does_not_start_and_says_what_it_needs(
    command: tuple[str, ...], needed: int
) -> None:
    with running(*command, within=limited(needed - 1)) as server:
        assert server.wait() == exits.CONFIG
        assert f"may open only {needed - 1} files and sockets, but needs at least {needed}" in server.text
        assert "ulimit -n" in server.text
        assert "LimitNOFILE" in server.text


@pytest.mark.parametrize("command", [COORDINATOR, SERVE])
def test_a_limit_that_may_be_raised_is_raised(command: tuple[str, ...]) -> None:
    with running(*command, within=limited(64, only_soft=True)) as server:
        server.wait_for(" listens ")


def test_a_server_with_room_for_few_clients_says_for_how_many() -> None:
    with running(*COORDINATOR, within=limited(512)) as server:
        server.wait_for("room for only 256 clients, because 512 files may be open")
        server.wait_for(" listens ")
