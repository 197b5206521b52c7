"""Connections to the hosts of a PostgreSQL URL, within a deadline.

- *Each host gets its share of the time*, in the order of the URL: one that is silent leaves the others theirs. libpq
  takes no less than 2 s for each.
- *The lookup of a name counts too.* It blocks, for as long as the system's resolver likes. So each attempt runs in a
  thread of its own. One that takes too long is not begun a second time: a later call waits for the same.
- *An error names each host*, so that a refusal by one does not hide that another may still come.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import psycopg
import psycopg.conninfo

PgConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

_CONNECT_S: Final = 2
"""Longest time to connect to one address, in whole seconds: the least that libpq takes."""
_SHARE_S_MIN: Final = 0.2
_NO_PASSPHRASE: Final = "none was given"
"""Of the key of a certificate, where it has one: without any, OpenSSL asks at the terminal, and waits there."""
_PER_HOST: Final = ("host", "hostaddr", "port")
"""Parameters of libpq that list a value for each host."""


class NoHostConnects(psycopg.OperationalError):
    """No host of the URL lets this coordinator in.

    Args:
        failures: what each of them has answered, by name.
    """

    def __init__(self, failures: dict[str, psycopg.Error]) -> None:
        texts = [" ".join(str(each).split()) for each in failures.values()]
        if len(failures) > 1:
            texts = [f"{host}: {text}" for host, text in zip(failures, texts, strict=True)]
        super().__init__("; ".join(texts))
        self.failures = tuple(failures.values())


class PgConnector:
    """Connects to the first host that takes writes. Not safe for use by several threads.

    Args:
        conninfo: a URL as libpq has it.
    """

    def __init__(self, conninfo: str) -> None:
        known: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(conninfo)
        if not known.get("sslpassword") and not known.get("service") and "PGSERVICE" not in os.environ:
            known["sslpassword"] = _NO_PASSPHRASE
            conninfo = psycopg.conninfo.make_conninfo(**known)
        self._hosts = _split(conninfo, known)
        self._is_order_random = known.get("load_balance_hosts") == "random"
        self._attempts: dict[str, _Attempt] = {}

    def connect(self, until_s: float) -> PgConnection:
        """Return a new connection.

        Args:
            until_s: when to give up, by the monotonic clock, in seconds.

        Raises:
            psycopg.Error: none could be made in time.
        """
        failures: dict[str, psycopg.Error] = {}
        hosts = list(self._hosts.items())
        if self._is_order_random:
            random.shuffle(hosts)
        for number, (name, conninfo) in enumerate(hosts):
            share_s = max(_SHARE_S_MIN, (until_s - time.monotonic()) / (len(hosts) - number))
            attempt = self._attempts.pop(name, None)
            if attempt is None or attempt.has_failed:
                attempt = _Attempt(conninfo)
            try:
                return attempt.result(share_s)
            except _Pending:
                self._attempts[name] = attempt
                failures[name] = psycopg.OperationalError("it does not answer in time")
            except psycopg.Error as error:
                failures[name] = error
        raise NoHostConnects(failures)

    def close(self) -> None:
        """Leave attempts that are under way alone: what they may still open is closed."""
        while self._attempts:
            self._attempts.popitem()[1].abandon()


class _Pending(Exception):
    """An attempt is still under way."""


class _Attempt:
    """One attempt at one host, in a thread of its own.

    Args:
        conninfo: names the host.

    Raises:
        psycopg.Error: the system has no room for the thread.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._mutex = threading.Lock()
        self._is_done = threading.Event()
        self._is_abandoned = False
        self._connection: PgConnection | None = None
        self._error: BaseException | None = None
        # Not one of an executor, which the end of the process would wait for.
        thread = threading.Thread(target=self._run, name="lockring-store-connect", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise psycopg.OperationalError(str(error)) from error

    @property
    def has_failed(self) -> bool:
        """Whether there will be no connection."""
        return self._is_done.is_set() and self._error is not None

    def result(self, wait_s: float) -> PgConnection:
        """Return the connection.

        Raises:
            _Pending: there is none yet.
            psycopg.Error: there will be none.
        """
        if not self._is_done.wait(wait_s):
            raise _Pending
        if self._connection is None:
            assert self._error is not None
            raise self._error
        return self._connection

    def abandon(self) -> None:
        """Close the connection that there may be, or may come."""
        with self._mutex:
            self._is_abandoned = True
            connection = self._connection
        if connection is not None:
            connection.close()

    def _run(self) -> None:
        connection: PgConnection | None = None
        try:
            connection = psycopg.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=_CONNECT_S,
                prepare_threshold=None,
                application_name="lockring coordinator",
                target_session_attrs="read-write",
            )
        except BaseException as error:  # noqa: BLE001 - the caller decides
            self._error = error
        with self._mutex:
            self._connection = connection
            is_abandoned = self._is_abandoned
        if is_abandoned and connection is not None:
            connection.close()
        self._is_done.set()


def _split(conninfo: str, known: Mapping[str, Any]) -> dict[str, str]:
    """Return what libpq takes for each host, by the host's name; for the whole, if the URL does not list hosts."""
    lists = {key: str(known[key]).split(",") for key in _PER_HOST if known.get(key)}
    count = max((len(values) for values in lists.values()), default=1)
    if count == 1 or any(len(values) not in (1, count) for values in lists.values()):
        return {"": conninfo}
    split: dict[str, str] = {}
    for number in range(count):
        own = {key: values[number if len(values) > 1 else 0] for key, values in lists.items()}
        port = own.get("port", "")
        host = own.get("host") or own.get("hostaddr") or ""
        name = f"{host}:{port}" if port else host
        split[name] = psycopg.conninfo.make_conninfo(**{**known, **own})
    return split
