"""The public keys of an issuer of JWTs: read from a file or a URL, and read again as they change.

Verifying a JWT never waits for the network. A thread reads the keys every few minutes, and at once when a JWT names
a key that is not known yet; that JWT is refused, and its client tries again.

Importing this module needs the package `pyjwt`, the extra `lockring[jwt]`.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message as HttpHeaders
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

import jwt

from lockring.addresses import check_host
from lockring.clock import monotonic_ns
from lockring.errors import ConfigError, Unavailable
from lockring.log_events import event
from lockring.security.tls_contexts import client_context
from lockring.security.tls_files import TlsPaths, read_files
from lockring.security.tokens import read_credential
from lockring.system_errors import reason_of
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

REFRESH_S: Final = 300.0
"""How often the keys are read again."""

HURRY_S: Final = 10.0
"""How often they are read again for a key that is not known, at most: a stranger may name any."""

FETCH_S_MAX: Final = 5.0
CLOSE_S_MAX: Final = 2.0
KEYS_BYTES_MAX: Final = 1024 * 1024

log = logging.getLogger("lockring.jwt")


class JwksPlace(NamedTuple):
    """Where the keys are.

    Attributes:
        place: a file, or an `https://` URL; `http://` of this machine alone.
        ca: a file with the authorities of the URL's server, "" for the system's.
        token_file: a file with a token to show there, "" for none; Kubernetes asks for a pod's own.
    """

    place: str
    ca: str = ""
    token_file: str = ""


def read_jwks(place: JwksPlace) -> Mapping[str, Any]:
    """Read the keys. Blocks, for a few seconds at most.

    Raises:
        ConfigError: the place is malformed, or what is there is not a set of keys.
        Unavailable: it cannot be read now.
    """
    data = _fetched(place) if "://" in place.place else _read(Path(place.place))
    try:
        found = json.loads(data)
    except ValueError:
        raise ConfigError(f"{place.place} is not a set of keys: not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise ConfigError(f'{place.place} is not a set of keys: it has no list "keys"')
    return found


def check_place(place: str) -> None:
    """Check the place that keys are read from.

    Raises:
        ConfigError: it is a URL that anyone on the way could answer, or one of a host that cannot be.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        return
    try:
        parts = urlsplit(place)
        check_host(unquote(parts.hostname or ""))
        _ = parts.port  # raises if it is none
    except ValueError as error:
        raise ConfigError(
            f"the place of the keys is a URL with a host or port that cannot be: {error}"
        ) from None
    if scheme == "https":
        return
    host = rest.partition("/")[0].rpartition("@")[2].rpartition(":")[0] or rest.partition("/")[0]
    if scheme != "http" or host not in ("localhost", "127.0.0.1", "[::1]"):
        raise ConfigError(
            f"{place} is not a safe place for keys: name a file or an https:// URL; http:// is for this machine alone"
        )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEYS_BYTES_MAX)
    except OSError as error:
        raise Unavailable(f"the keys in {path} cannot be read: {reason_of(error)}") from error


def _fetched(place: JwksPlace) -> bytes:
    check_place(place.place)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects(), urllib.request.ProxyHandler()]
    if place.place.startswith("https"):
        handlers.append(urllib.request.HTTPSHandler(context=_context(place)))
    request = urllib.request.Request(place.place, headers={"Accept": "application/json"})
    if place.token_file:
        request.add_header("Authorization", f"Bearer {read_credential(Path(place.token_file))}")
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=FETCH_S_MAX) as answer:
            data = answer.read(KEYS_BYTES_MAX)
            assert isinstance(data, bytes)
            return data
    except HTTPError as error:
        error.close()
        raise Unavailable(f"{place.place} answers with status {error.code}") from error
    except URLError as error:
        reason = error.reason
        text = reason_of(reason) if isinstance(reason, BaseException) else str(reason)
        raise Unavailable(f"{place.place} cannot be reached: {text}") from error
    except (OSError, HTTPException) as error:  # the second, if what answers does not speak HTTP
        raise Unavailable(f"{place.place} cannot be reached: {reason_of(error)}") from error


def _context(place: JwksPlace) -> ssl.SSLContext:
    paths = TlsPaths(ca=place.ca)
    return client_context(paths, read_files(paths))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the token would go along."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HttpHeaders,
        newurl: str,
    ) -> NoReturn:
        raise HTTPError(req.full_url, code, msg, headers, fp)


class IssuerKeys:
    """The keys of an issuer, by their ids. Safe for use by several threads.

    Args:
        read: reads the set of keys, as `read_jwks` does.
        title: where they are, for people.
    """

    def __init__(self, read: Callable[[], Mapping[str, Any]], title: str) -> None:
        self.title = title
        self._read = read
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_ns: int | None = None
        self._trouble = RepeatedTrouble()
        self._wakes = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def at(cls, place: JwksPlace) -> IssuerKeys:
        """Return the keys at a place. None is read yet.

        Raises:
            ConfigError: the place is malformed.
        """
        check_place(place.place)
        return cls(lambda: read_jwks(place), place.place)

    @property
    def age_s(self) -> float | None:
        """How long ago the keys were read, in seconds; None if they never were."""
        return None if self._read_ns is None else (monotonic_ns() - self._read_ns) / NS_PER_S

    def find(self, key_id: str) -> jwt.PyJWK | None:
        """Return a key, None if it is not known; the keys are then read again soon."""
        found = self._keys.get(key_id)
        if found is None:
            self._wakes.set()
        return found

    def refresh(self) -> bool:
        """Read the keys now, and return whether that worked. The former ones stay if it did not. Blocks."""
        try:
            keys = _usable(self._read())
        except (ConfigError, Unavailable) as error:
            told = self._trouble.fails(
                f"the keys of the JWT issuer stay as they were: {error}", now_ns=monotonic_ns()
            )
            if told:
                log.warning("%s", told, extra=event("issuer-unreachable", issuer=self.title))
            return False
        so_far = self._trouble.ends(now_ns=monotonic_ns())
        if so_far:
            log.info(
                "the keys of the JWT issuer at %s are read again (%s)",
                self.title,
                so_far,
                extra=event("issuer-works-again", issuer=self.title),
            )
        self._keys = keys
        self._read_ns = monotonic_ns()
        return True

    def start(self) -> None:
        """Read the keys in a thread of its own from now on."""
        assert self._thread is None
        self._thread = threading.Thread(target=self._run, name="lockring-jwks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; waits for a read that is under way, for `CLOSE_S_MAX` at most."""
        self._closed.set()
        self._wakes.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S_MAX)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wakes.clear()
            self.refresh()
            if not self._closed.wait(HURRY_S):
                self._wakes.wait(REFRESH_S - HURRY_S)


def _usable(found: Mapping[str, Any]) -> dict[str, jwt.PyJWK]:
    """Return the keys that verify signatures, by their ids. Others, and kinds that are unknown, are passed over."""
    keys = {}
    for each in found["keys"]:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig" or each.get("kty") == "oct":
            continue
        try:
            key = jwt.PyJWK(each)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        keys[str(each.get("kid", ""))] = key
    if not keys:
        raise ConfigError("the set of keys has none that verifies a signature")
    return keys
