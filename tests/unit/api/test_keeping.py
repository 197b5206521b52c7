"""What a stream of renewals remembers of the locks that were listed on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lockring.api import keeping
from lockring.api.keeping import KeepStream, Listed
from lockring.errors import InvalidRequest, Overloaded, Unavailable


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


def listed(number: int, ttl_ms: int) -> Listed:
    return Listed(f"job/{number}", "session", "key", f"wire-{number}", ttl_ms, 0)


def test_locks_that_are_not_listed_any_more_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOCKS_PER_STREAM_MAX", 10)
    now_ns = 0
    monkeypatch.setattr(keeping, "monotonic_ns", lambda: now_ns)

    async def main() -> None:
        nonlocal now_ns
        nobody = Nobody(Unavailable("nobody is there"))
        stream = KeepStream(nobody)  # type: ignore[arg-type]
        for number in range(100):
            stream.renew(number, [listed(number, 1_000)])
            now_ns += 150_000_000
        assert len(nobody.listened) <= 10
        with pytest.raises(Overloaded, match="10 locks at the most"):
            stream.renew(100, [listed(number, 1_000) for number in range(200, 220)])
        stream.close()
        assert nobody.listened == set()

    asyncio.run(main())


def test_an_error_says_which_of_the_locks_is_meant() -> None:
    async def main() -> None:
        stream = KeepStream(Nobody(InvalidRequest("the TTL is 5000 ms, not 7000 ms")))  # type: ignore[arg-type]
        stream.renew(1, [listed(3, 7_000)])
        with pytest.raises(InvalidRequest, match="'job/3' under key 'key': the TTL is 5000 ms"):
            async for _ in stream.responses():
                pass
        stream.close()

    asyncio.run(main())
