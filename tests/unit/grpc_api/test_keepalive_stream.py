"""What a stream of renewals remembers of the locks that were listed on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lockring.errors import InvalidRequest, Unavailable
from lockring.grpc_api import keepalive_stream as keeping
from lockring.grpc_api.keepalive_stream import KeepStream, KeptLock
from lockring.grpc_api.v1 import lockring_pb2 as pb


class Nobody:
    """A forwarder that reaches no node, or one that refuses."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.listened: set[str] = set()

    def listen(self, session: str, told: Callable[..., None]) -> None:
        self.listened.add(session)

    def unlisten(self, session: str, told: Callable[..., None]) -> None:
        self.listened.discard(session)

    def primary_of(self, slot: int) -> str:
        return "N1"

    async def port_of(self, primary: str, until_ns: int) -> Any:
        raise self.error

    async def pause(self, attempts: int, until_ns: int) -> None:
        await asyncio.sleep(0.01)


def listed(number: int, ttl_ms: int) -> KeptLock:
    return KeptLock(f"job/{number}", "session", "key", f"wire-{number}", ttl_ms, 0)


def test_a_stream_renews_any_number_of_locks_and_listens_for_those_listed_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeping, "LOCKS_PER_STREAM_MAX", 10)

    async def main() -> None:
        nobody = Nobody(Unavailable("nobody is there"))
        stream = KeepStream(nobody)  # type: ignore[arg-type]
        for number in range(100):
            stream.renew(number, [listed(number, 1_000), listed(0, 1_000)])
        assert nobody.listened == {"wire-0", *(f"wire-{number}" for number in range(91, 100))}
        stream.close()
        assert nobody.listened == set()

    asyncio.run(main())


def test_a_lock_that_is_listed_wrongly_is_refused_and_the_others_go_on() -> None:
    async def main() -> None:
        stream = KeepStream(Nobody(InvalidRequest("the TTL is 5000 ms, not 7000 ms")))  # type: ignore[arg-type]
        stream.renew(1, [listed(3, 7_000)])
        stream.renew(2, [listed(4, 7_000)])
        stream.end()
        kept = [lock async for response in stream.responses() for lock in response.locks]
        assert sorted((lock.name, lock.verdict) for lock in kept) == [
            ("job/3", pb.VERDICT_REFUSED),
            ("job/4", pb.VERDICT_REFUSED),
        ]
        assert kept[0].reason == "the TTL is 5000 ms, not 7000 ms"
        stream.close()

    asyncio.run(main())
