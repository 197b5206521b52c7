"""Shared stores by their URLs: the scheme chooses the engine, whose library is loaded only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from lockring.errors import ExtraMissing, InvalidRequest

if TYPE_CHECKING:
    from lockring.store.base import SharedStore


class _Engine(NamedTuple):
    """A kind of store.

    Attributes:
        extra: what an installation needs for it.
        check: raises `InvalidRequest` for a URL that is malformed; needs no library.
        open: opens it.
    """

    extra: str
    check: Callable[[str], object]
    open: Callable[[str], SharedStore]


def _check_etcd(url: str) -> None:
    from lockring.store.etcd.place import parse

    parse(url)


def _open_etcd(url: str) -> SharedStore:
    # Without this, gRPC writes lines of its own about each failure; the store's errors say the same, in the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lockring.store.etcd.store import EtcdStore

    return EtcdStore(url)


def _check_postgresql(url: str) -> None:
    from lockring.store.postgresql_place import parse

    parse(url)


def _open_postgresql(url: str) -> SharedStore:
    from lockring.store.postgresql import PostgresStore

    return PostgresStore(url)


_ETCD: Final = _Engine("etcd", _check_etcd, _open_etcd)
_POSTGRESQL: Final = _Engine("postgresql", _check_postgresql, _open_postgresql)
_ENGINES: Final = {"etcd": _ETCD, "etcds": _ETCD, "postgresql": _POSTGRESQL, "postgres": _POSTGRESQL}
"""By scheme."""


def check_store_url(url: str) -> None:
    """Check that a URL names an engine that there is, and has the form that it takes.

    Raises:
        InvalidRequest: it does not; the text shows nothing of it that may be secret.
    """
    _engine_of(url).check(url)


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
    engine.check(url)
    try:
        return engine.open(url)
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
