"""The client logs losses and connections, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import queue
import subprocess
import sys
from collections.abc import Iterator

import pytest

import lockring
import lockring.aio
from tests.processes import PATIENCE_S
from tests.unit.client.lock_server import LockServer


class Records(logging.Handler):
    """A handler that keeps what it is given, for one to wait for."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._records: queue.Queue[logging.LogRecord] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put(record)

    def next(self) -> tuple[int, str]:
        """Level and text of the next record."""
        record = self._records.get(timeout=PATIENCE_S)
        return record.levelno, record.getMessage()

    def is_empty(self) -> bool:
        return self._records.empty()


@pytest.fixture
def records() -> Iterator[Records]:
    records, log = Records(), logging.getLogger("lockring.client")
    log.addHandler(records)
    log.setLevel(logging.DEBUG)
    yield records
    log.removeHandler(records)
    log.setLevel(logging.NOTSET)


def test_a_loss_is_a_warning_with_the_lock_its_token_and_the_reason(
    server: LockServer, client: lockring.Client, records: Records
) -> None:
    grant = client.lock("nightly").acquire()
    server.lose("nightly")
    assert grant.lost.wait(PATIENCE_S)
    assert records.next() == (logging.DEBUG, f"connected to {server.address}")
    assert records.next() == (logging.WARNING, "the lock 'nightly' was lost: an operator broke it (token 1)")


@pytest.mark.parametrize("own_thread", [False, True])
def test_a_loss_in_the_asyncio_client_is_a_warning_too(
    server: LockServer, records: Records, own_thread: bool
) -> None:
    async def main() -> None:
        async with lockring.aio.Client(server.address, own_thread=own_thread) as client:
            grant = await client.lock("nightly").acquire()
            server.lose("nightly")
            await asyncio.wait_for(grant.lost.wait(), PATIENCE_S)

    asyncio.run(main())
    assert records.next() == (logging.DEBUG, f"connected to {server.address}")
    assert records.next() == (logging.WARNING, "the lock 'nightly' was lost: an operator broke it (token 1)")


def test_normal_work_is_not_logged(server: LockServer, client: lockring.Client, records: Records) -> None:
    for _ in range(10):
        with client.lock("nightly"):
            client.describe("nightly")
    client.close()
    with lockring.Client(server.address) as another, another.lock("last"):
        assert records.next() == (logging.DEBUG, f"connected to {server.address}")
        assert records.next() == (logging.DEBUG, f"connected to {server.address}"), "nothing came in between"
    assert records.is_empty()


def test_a_connection_that_is_lost_and_restored_is_logged_at_info(
    server: LockServer, client: lockring.Client, records: Records
) -> None:
    with client.lock("nightly"):
        assert records.next() == (logging.DEBUG, f"connected to {server.address}")
        server.cut()
        assert records.next() == (
            logging.INFO,
            f"lost the connection to {server.address}: the connection was lost",
        )
        assert records.next() == (logging.INFO, f"connected to {server.address} again")


def test_a_handler_may_call_the_client_whose_record_it_gets(
    server: LockServer, client: lockring.Client
) -> None:
    answers: queue.Queue[bool] = queue.Queue()

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            answers.put(client.describe("nightly").name == "nightly")

    log, handler = logging.getLogger("lockring.client"), Asking(logging.WARNING)
    log.addHandler(handler)
    try:
        grant = client.lock("nightly").acquire()
        server.lose("nightly")
        assert grant.lost.wait(PATIENCE_S)
        assert answers.get(timeout=PATIENCE_S)
    finally:
        log.removeHandler(handler)


SCRIPT = """
import sys, lockring
client = lockring.Client(sys.argv[1])
grant = client.lock("nightly").acquire()
print("held", flush=True)
assert grant.lost.wait(60)
"""


@pytest.mark.parametrize(
    ("configured", "printed"),
    [
        ("", ""),
        ("import logging; logging.basicConfig()", "WARNING:lockring.client:the lock 'nightly' was lost"),
        (
            "import lockring; lockring.Client; import logging; logging.basicConfig()",
            "WARNING:lockring.client:the lock 'nightly' was lost",
        ),
    ],
    ids=["not configured", "configured", "configured once the client is loaded"],
)
def test_the_log_is_printed_only_if_the_application_configures_logging(
    server: LockServer, configured: str, printed: str
) -> None:
    command = [sys.executable, "-c", configured + SCRIPT, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        server.lose("nightly")
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert errors.startswith(printed)
    assert bool(errors) == bool(printed)
