"""A caller that waits for long learns the holder: in its error, and in its log."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
from collections.abc import Iterator

import pytest

import lockring
import lockring.aio
from lockring.testing import LocalCluster
from tests.processes import PATIENCE_S

pytestmark = [pytest.mark.cluster]


class Records(logging.Handler):
    """Keeps the records of long waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: queue.Queue[logging.LogRecord] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "event", "") == "lock-wait-long":
            self.found.put(record)


@pytest.fixture
def records() -> Iterator[Records]:
    made, log = Records(), logging.getLogger("lockring.client")
    log.addHandler(made)
    yield made
    log.removeHandler(made)


def check_error(error: lockring.AcquireTimeout, token: int, position: int, wait_s: float) -> None:
    (holder,) = error.holders
    assert (holder.owner, holder.fencing_token) == ("the holder", token)
    assert (holder.host, holder.pid) == (socket.gethostname(), os.getpid())
    assert error.position == position
    assert wait_s <= error.waited_s < PATIENCE_S


def check_record(record: logging.LogRecord, name: str, token: int) -> None:
    assert record.levelno == logging.WARNING
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["lock"], fields["holder"], fields["fencing_token"]) == (name, "the holder", token)
    assert (fields["host"], fields["pid"], fields["position"]) == (socket.gethostname(), os.getpid(), 1)
    assert 4.9 < fields["waited_s"] < PATIENCE_S
    text = record.getMessage()
    assert text.startswith(f"the lock '{name}' has not been granted for ")
    assert f"'the holder' (host {socket.gethostname()}, process {os.getpid()})" in text


def test_the_blocking_client_names_the_holder(standing: LocalCluster, records: Records) -> None:
    with (
        lockring.Client(standing.servers, owner="the holder") as first,
        first.lock("long/1").acquire() as grant,
    ):
        with lockring.Client(standing.servers) as second:
            with pytest.raises(lockring.AcquireTimeout) as refused:
                second.lock("long/1").acquire(timeout=0)
            check_error(refused.value, grant.fencing_token, 1, 0.0)
            with pytest.raises(lockring.AcquireTimeout) as late:
                second.lock("long/1").acquire(timeout=6.5)
            check_error(late.value, grant.fencing_token, 1, 6.5)
        check_record(records.found.get(timeout=PATIENCE_S), "long/1", grant.fencing_token)
    assert records.found.empty()


@pytest.mark.parametrize("own_thread", [False, True])
def test_the_asyncio_client_names_the_holder(
    standing: LocalCluster, records: Records, own_thread: bool
) -> None:
    name = f"long/{own_thread}"

    async def main() -> int:
        async with (
            lockring.aio.Client(standing.servers, own_thread=own_thread) as second,
            lockring.aio.Client(standing.servers, owner="the holder") as first,
        ):
            grant = await first.lock(name).acquire()
            with pytest.raises(lockring.AcquireTimeout) as late:
                await second.lock(name).acquire(timeout=6.5)
            check_error(late.value, grant.fencing_token, 1, 6.5)
            return grant.fencing_token

    token = asyncio.run(main())
    check_record(records.found.get(timeout=PATIENCE_S), name, token)
    assert records.found.empty()
