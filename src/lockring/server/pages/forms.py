"""Proof that a form that changes something is one of our pages, sent by the viewer who has opened it.

A page of another site can have a browser send a form here, with the viewer's cookie or certificate. It cannot read our
pages, so it does not know the form's token. And browsers say from which site a form comes.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request

from lockring.errors import Denied, InvalidRequest
from lockring.protocol.identities import Identity

_SECRET_BYTES: Final = 32
_FIELDS_MAX: Final = 10
_HTTPS: Final = "https"


class FormTokens:
    """Makes and checks the tokens of forms. They hold as long as the process runs."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(_SECRET_BYTES)

    def token(self, identity: Identity | None, action: str, name: str) -> str:
        """Return the token of a form.

        Args:
            identity: the viewer's, None where none are looked at.
            action: the path to which the form is sent.
            name: the lock or node that it is about.
        """
        text = "\0".join(("" if identity is None else identity.key, action, name))
        return hmac.digest(self._secret, text.encode(), "sha256").hex()

    def check(self, request: Request, shown: str, identity: Identity | None, action: str, name: str) -> None:
        """Refuse a form that is not one of our pages.

        A program that shows its credential in a header of its own proves with that alone that it means the request.

        Raises:
            Denied: it is not, or the process was started again since.
        """
        if request.headers.get("authorization"):
            return
        check_same_origin(request)
        if not hmac.compare_digest(shown.encode(), self.token(identity, action, name).encode()):
            raise Denied("this form is out of date: open its page again")


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form, of each the last value; none for an empty body.

    Raises:
        InvalidRequest: the body is not a form of our pages.
    """
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise InvalidRequest("the connection has ended before the whole form had come") from error
    if not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidRequest(
            "the body of the request is a form, of the type application/x-www-form-urlencoded"
        )
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise InvalidRequest(f"the form cannot be read: {error}") from error
    return dict(fields)


def check_same_origin(request: Request) -> None:
    """Refuse a form that was not sent by a page of this site.

    Raises:
        Denied: it comes from another site, or does not say from which one.
    """
    site = request.headers.get("sec-fetch-site")
    if site == "same-origin":
        return
    origin = request.headers.get("origin") or request.headers.get("referer")
    if site is None and origin and _host_of(origin) == request.headers.get("host"):
        return
    raise Denied("a form is accepted from a page of this site alone")


def came_over_tls(request: Request) -> bool:
    """Return whether a browser has sent a form over TLS: to this port, or to a proxy that ends TLS.

    The header `Origin` has the scheme that the browser itself used. A program that makes it up harms itself alone.
    """
    origin = request.headers.get("origin", "")
    return request.url.scheme == _HTTPS or origin.startswith(f"{_HTTPS}://")


def _host_of(url: str) -> str:
    """Return HOST or HOST:PORT of a URL, "" for one that is malformed."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
