"""All pages of a process, as one ASGI application.

Rules:

- A page is answered only if its row in `HTTP_REQUIREMENTS` is met; a page without a row is refused.
- A request for another host's name is refused before anything else is looked at: see `hosts`.
- An answer says as little as possible to caches and browsers, unless its page says otherwise: see `_CAUTION`.
- A failure that is our bug is logged with its traceback and a number, and the client sees the number alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lockring.core.access import HTTP_REQUIREMENTS, Condition, Requirement
from lockring.errors import InternalError, InvalidRequest, LockringError, Unavailable
from lockring.log_events import event
from lockring.random_ids import new_id
from lockring.server.http.hosts import KnownHosts
from lockring.server.http.pages import ErrorPage, Page, name_of, plain_error, status_of
from lockring.server.http.protocol import HEAD_BYTES_MAX, HttpClient
from lockring.server.http.visits import Visit, VisitGate, bearer_of

ANSWER_S_MAX: Final = 30.0
"""How long a page may take to begin its answer."""

BODY_BYTES_MAX: Final = 64 * 1024
"""Longest body of a request."""

_CAUTION: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""Headers of every answer whose page sets no others."""

_NO_ROW: Final = Requirement(Condition.SERVER)

CredentialOf = Callable[[Request], str]
"""Returns the token or JWT that a request shows, "" for none."""

log = logging.getLogger("lockring.http")


class HttpSite:
    """The pages of one process. Lives in one event loop.

    Args:
        pages: all of them.
        gate: the access control of the server.
        hosts: the names under which the site may be asked for.
        prefix: the path that a proxy in front adds to every URL, "" for none. Requests without it are answered too, as
            probes send them that know no proxy.

    Attributes:
        is_ending: set when the process ends, so that answers that last end too.
        credential_of: returns the credential of a request. A page that takes credentials in another way replaces it.
        error_page: makes pages about errors, for people; None for none.
    """

    def __init__(
        self, pages: Iterable[Page], *, gate: VisitGate, hosts: KnownHosts, prefix: str = ""
    ) -> None:
        self.is_ending = asyncio.Event()
        self.credential_of: CredentialOf = bearer_of
        self.error_page: ErrorPage | None = None
        self._gate = gate
        self._hosts = hosts
        self._prefix = prefix
        self._router = Router(
            routes=[_route(page, self) for page in pages], redirect_slashes=False, default=_not_found
        )
        self._app = RequestBodyLimitMiddleware(self._router, BODY_BYTES_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. See ASGI."""
        assert scope["type"] == "http", "neither lifespan nor WebSocket is asked for"
        answer = _Answer(send)
        request = Request(scope)
        try:
            if _head_bytes(scope) > HEAD_BYTES_MAX:
                await _TOO_LONG(scope, receive, answer.send)
                return
            if not self._hosts.allows(request.headers.get("host")):
                await _MISDIRECTED(scope, receive, answer.send)
                return
            self._strip_prefix(scope)
            await self._app(scope, receive, answer.send)
        except Exception as error:
            number = new_id()
            log.exception(
                "no answer to %s %s, because of a bug: %s",
                scope["method"],
                _shown(scope["path"]),
                number,
                extra=event("http-bug", number=number),
            )
            if answer.has_begun:
                raise  # the connection ends: half an answer must not look like a whole one
            problem = InternalError(
                f"this server has a bug, which its log has under the number {number}: {type(error).__name__}"
            )
            failure = await self.failure(request, 500, problem)
            await failure(scope, receive, answer.send)

    async def failure(self, request: Request, status: int, error: LockringError) -> Response:
        """Return the answer about an error."""
        page = None if self.error_page is None else await self.error_page(request, status, error)
        return plain_error(request, status, error) if page is None else page

    def visit(self, request: Request, credential: str | None = None) -> Visit:
        """Return what the client of a request may do.

        Args:
            request: the request.
            credential: a token or a JWT that counts instead of the one that the request shows; None for that one.

        Raises:
            Denied: it has shown nothing that lets it in.
        """
        client = request.scope["state"].get("client")
        assert isinstance(client, HttpClient)
        shown = self.credential_of(request) if credential is None else credential
        return Visit(self._gate, client.certificate, shown, origin=client.remote)

    def _strip_prefix(self, scope: Scope) -> None:
        path: str = scope["path"]
        if self._prefix and (path == self._prefix or path.startswith(self._prefix + "/")):
            scope["root_path"] = self._prefix
            if path == self._prefix:
                scope["path"] = path + "/"


class _Answer:
    """Sends an answer, with the headers of caution that its page has not set."""

    def __init__(self, send: Send) -> None:
        self.has_begun = False
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _CAUTION.items():
                headers.setdefault(name, value)
        await self._send(message)


class _PageApp:
    """Answers the requests to one page."""

    def __init__(self, page: Page, site: HttpSite) -> None:
        self._page = page
        self._site = site
        self._requirements = {
            method: HTTP_REQUIREMENTS.get(f"{method} {page.path}", _NO_ROW) for method in page.methods
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response: Response
        try:
            self._judge(request)
            async with asyncio.timeout(ANSWER_S_MAX):
                response = await self._page.answer(request)
        except TimeoutError:
            late = Unavailable(f"there was no answer within {ANSWER_S_MAX:g} s; try again")
            response = await self._site.failure(request, 503, late)
        except LockringError as error:
            response = await self._site.failure(request, status_of(error), error)
        await response(scope, receive, send)

    def _judge(self, request: Request) -> None:
        method = "GET" if request.method == "HEAD" else request.method
        requirement = self._requirements[method]
        if requirement.condition is not Condition.FREE:
            visit = self._site.visit(request)
            request.scope["state"]["visit"] = visit
            visit.meet(requirement, name_of(request))


def _route(page: Page, site: HttpSite) -> Route:
    app: ASGIApp = _PageApp(page, site)
    return Route(page.path, app, methods=list(page.methods))


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    response = plain_error(
        Request(scope), 404, InvalidRequest(f"there is no page {_shown(scope['path'])} here")
    )
    await response(scope, receive, send)


_MISDIRECTED: Final = PlainTextResponse(
    "this server is not known under that name; if it is one of its own, add it with --http-hosts\n", 421
)


_TOO_LONG: Final = PlainTextResponse(f"the head of a request has up to {HEAD_BYTES_MAX} bytes\n", 431)


def _head_bytes(scope: Scope) -> int:
    """Return about how long the head of a request was: uvicorn bounds one that comes in parts alone."""
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return headers + len(scope["raw_path"]) + len(scope["query_string"])


def _shown(path: str) -> str:
    return ascii(path[:200])
