"""The memory that a stream of renewals has of the locks that were listed on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lockring.core.client import ONLY_ACQUISITION, ClientCore, LossOnBehalf, Query
from lockring.errors import InternalError, InvalidRequest, LockringError, Unavailable
from lockring.grpc_api import keepalive_stream as keeping
from lockring.grpc_api.driver import LossHandler
from lockring.grpc_api.keepalive_stream import KeepStream, KeptLock
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import Generation
from lockring.protocol import AcquisitionVerdict, KeepaliveReply, Verdict
from tests.unit.freed import is_freed_after_await


class ScriptedDriver:
    """A driver whose every query has the same outcome, at once or never."""

    def __init__(
        self, error: LockringError | None, *, reply: KeepaliveReply | None = None, at_once: bool = True
    ) -> None:
        self.outcome = (reply, error)
        self.at_once = at_once
        self.listened: dict[str, LossHandler] = {}
        self.abandoned: list[Query] = []
        self._core = ClientCore(["10.0.0.1:1"], owner="", new_id=lambda: "id", session_per_acquisition=True)

    def listen(self, session: str, handler: LossHandler) -> None:
        self.listened[session] = handler

    def unlisten(self, session: str, handler: LossHandler) -> None:
        del self.listened[session]

    def begin(self, question: Callable[[ClientCore, int], Query]) -> Query:
        query = question(self._core, 0)
        query.exchange.call = asyncio.get_running_loop().create_future()
        if self.at_once:
            query.exchange.call.set_result(self.outcome)
        return query

    def abandon(self, request: Query) -> None:
        self.abandoned.append(request)


def listed(number: int, ttl_ms: int) -> KeptLock:
    return KeptLock(f"job/{number}", "session", "key", f"wire-{number}", ttl_ms, 0)


def test_a_stream_renews_any_number_of_locks_and_listens_for_those_listed_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "LOCKS_PER_STREAM_MAX", 10)

    async def main() -> None:
        driver = ScriptedDriver(Unavailable("no node is there"))
        stream = KeepStream(driver)
        for number in range(100):
            stream.renew(number, [listed(number, 1_000), listed(0, 1_000)])
        assert set(driver.listened) == {"wire-0", *(f"wire-{number}" for number in range(91, 100))}
        stream.close()
        assert driver.listened == {}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (
            InvalidRequest("the TTL is 5000 ms, not 7000 ms"),
            pb.VERDICT_REFUSED,
            "the TTL is 5000 ms, not 7000 ms",
        ),
        (Unavailable("no node serves slot 7"), pb.VERDICT_UNKNOWN, ""),
    ],
)
def test_a_lock_that_is_listed_wrongly_is_refused_and_one_that_no_node_speaks_of_is_unknown(
    error: LockringError, verdict: pb.Verdict.ValueType, reason: str
) -> None:
    async def main() -> None:
        stream = KeepStream(ScriptedDriver(error))
        stream.renew(1, [listed(3, 7_000)])
        stream.renew(2, [listed(4, 7_000)])
        stream.end()
        kept = [lock async for response in stream.responses() for lock in response.locks]
        assert sorted((lock.name, lock.verdict, lock.reason) for lock in kept) == [
            ("job/3", verdict, reason),
            ("job/4", verdict, reason),
        ]
        stream.close()

    asyncio.run(main())


def test_a_stream_that_is_closed_withdraws_what_it_has_asked() -> None:
    async def main() -> None:
        driver = ScriptedDriver(Unavailable("no node is there"), at_once=False)
        stream = KeepStream(driver)
        stream.renew(1, [listed(3, 7_000), listed(4, 7_000)])
        stream.close()
        assert [query.name for query in driver.abandoned] == ["job/3", "job/4"]

    asyncio.run(main())


async def read_all(stream: KeepStream) -> None:
    async for _ in stream.responses():
        pass


def test_an_answer_that_cannot_be_passed_on_ends_its_stream_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error in a callback would end the whole node, and one that is dropped would leave the client waiting."""
    unheard: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        beyond = 2**70  # more than the answer's field can hold
        reply = KeepaliveReply(
            1, 5_000, False, [], [AcquisitionVerdict(ONLY_ACQUISITION, Verdict.HELD, beyond)]
        )
        stream = KeepStream(ScriptedDriver(None, reply=reply))
        stream.renew(1, [listed(3, 7_000)])
        stream.end()
        with pytest.raises(InternalError, match="the node's log says more"):
            await asyncio.wait_for(read_all(stream), 5)
        await asyncio.wait_for(stream.room(), 5)
        stream.close()

    asyncio.run(main())
    assert unheard == []
    assert "a bug in lockring" in caplog.text


@pytest.mark.parametrize(("generation", "is_told"), [(0, True), (6, False), (7, True), (8, True)])
def test_only_the_end_of_an_earlier_grant_is_not_passed_on(generation: int, is_told: bool) -> None:
    async def main() -> list[str]:
        driver = ScriptedDriver(None, at_once=False)
        stream = KeepStream(driver)
        stream.renew(1, [listed(3, 7_000)._replace(generation=Generation(7))])
        driver.listened["wire-3"](LossOnBehalf("wire-3", "job/3", "expired", Generation(generation)))
        told = [lock.reason for locks in stream._ready.values() for lock in locks]
        stream.close()
        return told

    assert asyncio.run(main()) == ["expired"] * is_told


def test_a_loss_that_cannot_be_passed_on_ends_its_stream_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        driver = ScriptedDriver(None, at_once=False)
        stream = KeepStream(driver)
        stream.renew(1, [listed(3, 7_000)])
        driver.listened["wire-3"](LossOnBehalf("wire-3", "job/3", "no text: \ud800", Generation(0)))
        with pytest.raises(InternalError, match="the node's log says more"):
            await asyncio.wait_for(read_all(stream), 5)
        stream.close()

    asyncio.run(main())
    assert "a bug in lockring" in caplog.text


def test_a_stream_that_has_ended_with_an_error_leaves_nothing_in_memory() -> None:
    async def serve() -> None:
        stream = KeepStream(ScriptedDriver(None))
        stream.end(InvalidRequest("a request cannot be read"))
        try:
            async for _ in stream.responses():
                pass
        finally:
            stream.close()

    async def main() -> None:
        assert await is_freed_after_await(InvalidRequest, serve)

    asyncio.run(main())
