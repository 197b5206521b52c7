"""A page of a site: its path, its methods and the function that answers. The right that it needs is in the table
`core.access.HTTP_REQUIREMENTS`; a page without a row there is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from lockring.errors import (
    Denied,
    InvalidRequest,
    LockringError,
    Overloaded,
    Unauthenticated,
    Unavailable,
    UnknownNode,
)

Answer: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers a request. Raises a `LockringError` for one that it refuses."""

ErrorPage: TypeAlias = Callable[[Request, int, LockringError], Awaitable[Response | None]]
"""Returns a page for people about an error with its HTTP status; None for the plain form."""


class Page(NamedTuple):
    """A page. An answer that lasts ends by itself once `HttpSite.is_ending` is set, and once its visit is over.

    Attributes:
        path: from the site's root, as Starlette writes it: "/locks/{name:path}". Where the right is one for a name,
            `name_of` finds it.
        answer: the function that answers.
        methods: of HTTP; GET includes HEAD.
    """

    path: str
    answer: Answer
    methods: tuple[str, ...] = ("GET",)


def name_of(request: Request) -> str:
    """Return the lock or node that a request is about, as its path or its parameter `name` says; "" for none."""
    return str(request.path_params.get("name") or request.query_params.get("name", ""))


def wants_json(request: Request) -> bool:
    """Return whether JSON was asked for: by `?format=json`, or by an `Accept` that names it and not HTML."""
    asked = request.query_params.get("format")
    if asked is not None:
        return asked == "json"
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "text/html" not in accepted


def status_of(error: LockringError) -> int:
    """Return the HTTP status of an error."""
    match error:
        case Unauthenticated():
            return 401
        case Denied():
            return 403
        case UnknownNode():
            return 404
        case InvalidRequest():
            return 400
        case Overloaded() | Unavailable():
            return 503
    return 409


def plain_error(request: Request, status: int, error: LockringError) -> Response:
    """Return an error as text, or as JSON if that was asked for."""
    headers = {"WWW-Authenticate": 'Bearer realm="lockring"'} if status == 401 else None
    if wants_json(request):
        return JSONResponse({"error": error.code, "message": str(error)}, status, headers)
    return PlainTextResponse(f"{error}\n", status, headers)
