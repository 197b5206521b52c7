"""Shared stores by their URLs: the scheme chooses the engine, whose library is loaded only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from lockring.errors import LockringError, StoreError
from lockring.store.awaited import AwaitedStore
from lockring.store.base import SharedStore


def _etcd(url: str) -> _Engine:
    # Without this, gRPC writes lines of its own about each failure; the store's errors say the same, in the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lockring.store.etcd.store import EtcdStore, place_of

    return _Engine(place_of(url), lambda: EtcdStore(url))


def _postgresql(url: str) -> _Engine:
    from lockring.store.postgresql import PostgresStore, place_of

    return _Engine(place_of(url), lambda: PostgresStore(url))


class _Engine(NamedTuple):
    """The engine of one URL: its name and place for people, and the function that opens its store."""

    place: str
    opens: Callable[[], SharedStore]


_ENGINES: Final[dict[str, tuple[str, Callable[[str], _Engine]]]] = {
    "etcd": ("etcd", _etcd),
    "etcds": ("etcd", _etcd),
    "postgresql": ("postgresql", _postgresql),
    "postgres": ("postgresql", _postgresql),
}
"""By scheme: the extra that an engine needs, and the engine."""


def check_store_url(url: str) -> None:
    """Check that a URL names an engine that there is.

    Raises:
        StoreError: it does not.
    """
    _engine_of(url)


def open_store(url: str) -> SharedStore:
    """Open a shared store.

    Args:
        url: `etcd://…`, `etcds://…` or `postgresql://…`; see the engine's class.

    Raises:
        StoreError: there is no such engine, its library is not installed, or it cannot be opened.
    """
    return _loaded(url).opens()


def await_store(url: str, on_hopeless: Callable[[LockringError], None]) -> AwaitedStore:
    """Return a shared store that is opened as soon as its server answers.

    Args:
        url: as for `open_store`.
        on_hopeless: called in another thread with an error that waiting cannot mend.

    Raises:
        StoreError: there is no such engine, its library is not installed, or the URL is malformed.
    """
    engine = _loaded(url)
    return AwaitedStore(engine.place, engine.opens, on_hopeless)


def _loaded(url: str) -> _Engine:
    extra, engine_of = _engine_of(url)
    try:
        return engine_of(url)
    except ImportError as error:
        raise StoreError(
            f"the store {url.partition(':')[0]} needs more than is installed ({error}): pip install 'lockring[{extra}]'"
        ) from error


def _engine_of(url: str) -> tuple[str, Callable[[str], _Engine]]:
    scheme, colon, _ = url.partition("://")
    engine = _ENGINES.get(scheme) if colon else None
    if engine is None:
        kinds = ", ".join(f"{each}://…" for each in _ENGINES if each != "postgres")
        raise StoreError(f"a store is named by a URL of one of these kinds: {kinds}; not by {scheme[:40]!r}")
    return engine
