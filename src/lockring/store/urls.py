"""Shared stores by their URLs: the scheme chooses the engine, whose library is loaded only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from lockring.errors import ExtraMissing, InvalidRequest, LockringError

if TYPE_CHECKING:
    from lockring.store.awaited import AwaitedStore
    from lockring.store.base import SharedStore


class _Engine(NamedTuple):
    """A kind of store.

    Attributes:
        extra: what an installation needs for it.
        place_of: returns the engine and the place that a URL names, for people; raises `InvalidRequest` for one that is
            malformed. Needs no library.
        load: loads the library, and returns the function that opens a store.
    """

    extra: str
    place_of: Callable[[str], str]
    load: Callable[[], Callable[[str], SharedStore]]


def _etcd_place(url: str) -> str:
    from lockring.store.etcd.place import parse

    return parse(url).named


def _load_etcd() -> Callable[[str], SharedStore]:
    # Without this, gRPC writes lines of its own about each failure; the store's errors say the same, in the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lockring.store.etcd.store import EtcdStore

    return EtcdStore


def _postgresql_place(url: str) -> str:
    from lockring.store.postgresql_place import parse

    return parse(url).named


def _load_postgresql() -> Callable[[str], SharedStore]:
    from lockring.store.postgresql import PostgresStore

    return PostgresStore


_ETCD: Final = _Engine("etcd", _etcd_place, _load_etcd)
_POSTGRESQL: Final = _Engine("postgresql", _postgresql_place, _load_postgresql)
_ENGINES: Final = {"etcd": _ETCD, "etcds": _ETCD, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
"""By scheme."""


def check_store_url(url: str) -> None:
    """Check that a URL names an engine that there is, and has the form that it takes.

    Raises:
        InvalidRequest: it does not; the text shows nothing of it that may be secret.
    """
    _engine_of(url).place_of(url)


def open_store(url: str) -> SharedStore:
    """Open a shared store.

    Args:
        url: `etcd://…`, `etcds://…` or `postgresql://…`; see the engine's class.

    Raises:
        InvalidRequest: the URL is malformed, or there is no such engine.
        ExtraMissing: the engine's library is not installed.
        StoreError: it cannot be opened.
    """
    engine = _engine_of(url)
    engine.place_of(url)
    return _loaded(engine)(url)


def await_store(url: str, on_hopeless: Callable[[LockringError], None]) -> AwaitedStore:
    """Return a shared store that is opened as soon as its server answers.

    Args:
        url: as for `open_store`.
        on_hopeless: called in another thread with an error that waiting cannot mend.

    Raises:
        InvalidRequest: the URL is malformed, or there is no such engine.
        ExtraMissing: the engine's library is not installed.
    """
    from lockring.store.awaited import AwaitedStore

    engine = _engine_of(url)
    place = engine.place_of(url)
    opens = _loaded(engine)
    return AwaitedStore(place, lambda: opens(url), on_hopeless)


def _loaded(engine: _Engine) -> Callable[[str], SharedStore]:
    try:
        return engine.load()
    except ImportError as error:
        raise ExtraMissing(
            f"a store in {engine.extra} needs more than is installed ({error}): pip install 'lockring[{engine.extra}]'"
        ) from error


def _engine_of(url: str) -> _Engine:
    scheme, colon, _ = url.partition("://")
    engine = _ENGINES.get(scheme) if colon else None
    if engine is None:
        # The word that was given is not shown: it may be a password that went astray.
        kinds = ", ".join(f"{each}://…" for each in _ENGINES if each != "postgres")
        raise InvalidRequest(f"a store is named by a URL of one of these kinds: {kinds}")
    return engine
