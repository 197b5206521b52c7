"""Shared stores by their URLs: the scheme chooses the engine, whose library is loaded only then."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from lockring.errors import StoreError
from lockring.store.base import SharedStore


def _open_etcd(url: str) -> SharedStore:
    # Without this, gRPC writes lines of its own about each failure; the store's errors say the same, in the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from lockring.store.etcd.store import EtcdStore

    return EtcdStore(url)


def _open_postgresql(url: str) -> SharedStore:
    from lockring.store.postgresql import PostgresStore

    return PostgresStore(url)


_ENGINES: Final[dict[str, tuple[str, Callable[[str], SharedStore]]]] = {
    "etcd": ("etcd", _open_etcd),
    "etcds": ("etcd", _open_etcd),
    "postgresql": ("postgresql", _open_postgresql),
    "postgres": ("postgresql", _open_postgresql),
}
"""By scheme: the extra that an engine needs, and how it is opened."""


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
    extra, opener = _engine_of(url)
    try:
        return opener(url)
    except ImportError as error:
        raise StoreError(
            f"the store {url.partition(':')[0]} needs more than is installed ({error}): pip install 'lockring[{extra}]'"
        ) from error


def _engine_of(url: str) -> tuple[str, Callable[[str], SharedStore]]:
    scheme, colon, _ = url.partition("://")
    engine = _ENGINES.get(scheme) if colon else None
    if engine is None:
        kinds = ", ".join(f"{each}://…" for each in _ENGINES if each != "postgres")
        raise StoreError(f"a store is named by a URL of one of these kinds: {kinds}; not by {scheme[:40]!r}")
    return engine
