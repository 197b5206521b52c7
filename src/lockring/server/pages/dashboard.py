"""The pages of the dashboard, and how each is answered.

Rules:

- A page has one answer in three forms: for people, as JSON (`?format=json`, or an `Accept` that names it), and as a
  stream that follows it (`?format=stream`). All have the same values, of the same viewer.
- The nodes decide what a viewer sees. A page shows a way to act only where the viewer has the right to.
- Everything that changes something is a POST with a form's token, and asks for confirmation first.
- URLs are relative and have one segment, so that any prefix of a proxy fits, and names are parameters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lockring.cluster_state import GENERATION_MAX, ClusterState
from lockring.core.access import Verb
from lockring.core.events import KINDS
from lockring.errors import ConfigError, Denied, InvalidRequest, LockringError, Unauthenticated
from lockring.ids import NO_CLUSTER, NO_VERSION, ClusterId, Generation, LockName, NodeId, Version
from lockring.names import GROUP_PREFIX, check_lock_name, check_node_id
from lockring.net.openers import Opener
from lockring.security.tokens import check_credential
from lockring.server.http.pages import Page, name_of, status_of, wants_json
from lockring.server.http.site import HttpSite
from lockring.server.http.visits import bearer_of, visit_of
from lockring.server.pages.forms import FormTokens, came_over_tls, check_same_origin, read_form
from lockring.server.pages.rendering import STATIC, Templates, as_json, page_url, static_file
from lockring.server.pages.shared_answers import SharedAnswers
from lockring.server.pages.sign_ins import SignIns
from lockring.server.pages.streams import Streams
from lockring.views.cluster import ClusterView
from lockring.views.events import EventsView
from lockring.views.filters import (
    LIMITS,
    MODES,
    EventFilter,
    LockFilter,
    checked_text,
    event_filter,
    lock_filter,
)
from lockring.views.locks import LocksView
from lockring.views.reader import ClusterReader, Viewer
from lockring.views.ring_arcs import Arc, ring_arcs

_BLOCKED_SHOWN: Final = 5
_EVENTS_ON_OVERVIEW: Final = 8

_NOTICES: Final = {
    "broken": "The lease was broken. The lock is free once its holder lets go, or once the TTL has passed.",
    "freed": "The lock was freed.",
    "draining": "The node began to drain: its slots move to the others.",
    "undrained": "The node may have slots again.",
}
"""The news on a page after an order, by the parameter `notice`."""

_TOKEN_DIGITS_MAX: Final = len(str(GENERATION_MAX))
_SEE_OTHER: Final = 303
_UNAVAILABLE: Final = 503


class _Content(NamedTuple):
    """The content of a page: its template, and what that and JSON show."""

    template: str
    values: dict[str, Any]
    shown: object


T = TypeVar("T")

Look = Callable[[Request, Viewer], Awaitable[_Content]]


class Dashboard:
    """The dashboard of one process. Lives in one event loop.

    Args:
        seeds: returns addresses of servers of the cluster.
        opener: opens connections to servers.
        is_server: whether these prove that this process is a server of the cluster.
        cookie: the name of the cookie; other servers of this host must have other ones.
    """

    def __init__(
        self, seeds: Callable[[], Sequence[str]], opener: Opener, *, is_server: bool, cookie: str
    ) -> None:
        self._reader = ClusterReader(seeds, opener, is_server=is_server)
        self._cookie = cookie
        self._templates = Templates()
        self._answers = SharedAnswers()
        self._sign_ins = SignIns()
        self._tokens = FormTokens()
        self._streams = Streams(asyncio.Event())
        self._site: HttpSite | None = None
        self._arcs: tuple[tuple[ClusterId, Version], list[Arc]] = ((NO_CLUSTER, NO_VERSION), [])

    def pages(self) -> list[Page]:
        """Return its pages."""
        both = ("GET", "POST")
        return [
            Page("/", self._page(self._overview)),
            Page("/members", self._page(self._members)),
            Page("/locks", self._page(self._locks)),
            Page("/lock", self._page(self._lock)),
            Page("/groups", self._page(self._groups)),
            Page("/group", self._page(self._group)),
            Page("/events", self._page(self._events)),
            Page("/break", self._break, both),
            Page("/drain", self._drain, both),
            Page("/undrain", self._drain, both),
            Page("/sign-in", self._sign_in, both),
            Page("/sign-out", self._sign_out, ("POST",)),
            *(Page(f"/{name}", self._static) for name in STATIC),
        ]

    def attach(self, site: HttpSite) -> None:
        """Let a site take the credentials of this dashboard's cookies, and show errors as its pages."""
        self._site = site
        site.credential_of = self._credential
        site.error_page = self._error
        self._streams = Streams(site.is_ending)

    async def prepare(self) -> None:
        """Compile the templates, before the first page needs them."""
        await self._templates.compile()

    async def close(self) -> None:
        """End all connections to servers."""
        await self._reader.close()

    # ------------------------------------------------------------------ a page in its forms

    def _page(self, look: Look) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            prefix = request.scope.get("root_path", "")
            if prefix and request.scope["raw_path"] == prefix.encode():
                return RedirectResponse(prefix + "/", _SEE_OTHER)  # relative URLs count from the last slash
            viewer = self._viewer(request)
            key = (viewer, request.url.path, request.url.query.replace("format=stream", ""))

            async def shared() -> _Content:
                return await self._answers.get(key, lambda: look(request, viewer))

            if request.query_params.get("format") == "stream":
                visit = visit_of(request)

                async def content() -> str:
                    found = await shared()
                    return await self._templates.content(
                        found.template, **self._around(request), **found.values
                    )

                return self._streams.follow(content, is_over=lambda: visit.is_over)
            found = await shared()
            if wants_json(request):
                return as_json(found.shown)
            return await self._templates.page(found.template, **self._around(request), **found.values)

        return answer

    def _around(self, request: Request) -> dict[str, Any]:
        """Return what every page shows around its content."""
        visit = request.scope["state"].get("visit")
        identity = None if visit is None else visit.identity
        path = _page_name(request)
        return {
            "here": path,
            "query": request.url.query,
            "identity": "" if identity is None else str(identity),
            "is_signed_in": self._cookie in request.cookies,
            "notice": _NOTICES.get(request.query_params.get("notice", ""), ""),
            "json_url": page_url(path, **(dict(request.query_params) | {"format": "json"})),
            "stream_url": page_url(path, **(dict(request.query_params) | {"format": "stream"})),
        }

    def _viewer(self, request: Request) -> Viewer:
        visit = visit_of(request)
        return Viewer(visit.identity, visit.credential)

    # ------------------------------------------------------------------ what pages show

    async def _overview(self, request: Request, viewer: Viewer) -> _Content:
        """Show the cluster. In an outage the locks, and the events of some servers, are missing."""
        (state, view), blocked, events = await asyncio.gather(
            self._reader.cluster(viewer),
            _or_problem(self._reader.locks(viewer, LockFilter(show="waiting"))),
            _or_problem(self._reader.events(viewer, EventFilter())),
        )
        values = {
            "view": view,
            "arcs": self._arcs_of(state, view),
            "blocked": blocked if isinstance(blocked, LocksView) else None,
            "blocked_problem": blocked if isinstance(blocked, str) else "",
            "blocked_shown": _BLOCKED_SHOWN,
            "events": events.events[:_EVENTS_ON_OVERVIEW] if isinstance(events, EventsView) else [],
            "events_problem": events if isinstance(events, str) else "",
        }
        shown = {"cluster": view, "blocked": values["blocked"], "events": values["events"]}
        return _Content("overview.html", values, shown)

    async def _members(self, request: Request, viewer: Viewer) -> _Content:
        state, view = await self._reader.cluster(viewer)
        may_drain = {each.node: visit_of(request).may(Verb.DRAIN, each.node) for each in view.members}
        values = {"view": view, "arcs": self._arcs_of(state, view), "may_drain": may_drain}
        return _Content("members.html", values, view)

    async def _locks(self, request: Request, viewer: Viewer) -> _Content:
        wanted = lock_filter(request.query_params)
        view = await self._reader.locks(viewer, wanted)
        values = {"view": view, "wanted": wanted, "modes": MODES, "limits": LIMITS}
        return _Content("locks.html", values, view)

    async def _lock(self, request: Request, viewer: Viewer) -> _Content:
        name = _lock_name(request)
        view = await self._reader.lock(viewer, name)
        values = {"view": view, "may_break": visit_of(request).may(Verb.BREAK, name)}
        return _Content("lock.html", values, view)

    async def _groups(self, request: Request, viewer: Viewer) -> _Content:
        text = checked_text(request.query_params.get("text", ""), "text")
        after = checked_text(request.query_params.get("after", ""), "after")
        view = await self._reader.groups(viewer, text, after)
        return _Content("groups.html", {"view": view, "text": text}, view)

    async def _group(self, request: Request, viewer: Viewer) -> _Content:
        name = _lock_name(request)
        if not name.startswith(GROUP_PREFIX) or name == GROUP_PREFIX:
            raise InvalidRequest(f"the lock of a group is named {GROUP_PREFIX}NAME, not {name!r}")
        view = await self._reader.group(viewer, name.removeprefix(GROUP_PREFIX))
        return _Content("group.html", {"view": view}, view)

    async def _events(self, request: Request, viewer: Viewer) -> _Content:
        wanted = event_filter(request.query_params)
        view = await self._reader.events(viewer, wanted)
        return _Content("events.html", {"view": view, "wanted": wanted, "kinds": KINDS}, view)

    def _arcs_of(self, state: ClusterState, view: ClusterView) -> list[Arc]:
        """Return the arcs of the ring, which are made once per cluster state: that takes some 10 ms."""
        key = state.cluster, state.version
        if self._arcs[0] != key:
            self._arcs = key, ring_arcs(state, view)
        return self._arcs[1]

    # ------------------------------------------------------------------ orders

    async def _break(self, request: Request) -> Response:
        name, viewer = _lock_name(request), self._viewer(request)
        token = _token(request.query_params.get("token", ""))
        if request.method != "POST":
            return await self._templates.page(
                "break.html",
                **self._around(request),
                view=await self._reader.grant(viewer, name, token),
                form_token=self._tokens.token(viewer.identity, "break", name),
            )
        form = await self._form(request, viewer, "break", name)
        broken = await self._reader.break_lock(viewer, name, token, force=form.get("force") == "yes")
        self._answers.forget()
        if wants_json(request):
            return as_json({"name": name, "freed": broken.freed, "free_within_s": broken.within_ms / 1000})
        notice = "freed" if broken.freed else "broken"
        return RedirectResponse(page_url("lock", name=name, notice=notice), _SEE_OTHER)

    async def _drain(self, request: Request) -> Response:
        node, viewer = NodeId(check_node_id(name_of(request))), self._viewer(request)
        action = _page_name(request)
        if request.method != "POST":
            return await self._templates.page(
                "drain.html",
                **self._around(request),
                node=node,
                is_undo=action == "undrain",
                form_token=self._tokens.token(viewer.identity, action, node),
            )
        await self._form(request, viewer, action, node)
        await self._reader.drain(viewer, node, undo=action == "undrain")
        self._answers.forget()
        if wants_json(request):
            return as_json({"node": node, "ordered": action})
        notice = "undrained" if action == "undrain" else "draining"
        return RedirectResponse(page_url("members", notice=notice), _SEE_OTHER)

    async def _form(self, request: Request, viewer: Viewer, action: str, name: str) -> dict[str, str]:
        form = await read_form(request)
        self._tokens.check(request, form.get("form", ""), viewer.identity, action, name)
        return form

    # ------------------------------------------------------------------ sign-in

    async def _sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return await self._sign_in_page(request, 200, "", _place(request.query_params.get("next", "")))
        check_same_origin(request)
        form = await read_form(request)
        place = _place(form.get("next", ""))
        try:
            credential = check_credential(form.get("credential", ""), "the field")
        except ConfigError as error:
            return await self._sign_in_page(request, 400, str(error), place)
        assert self._site is not None, "pages are answered by the site to which they belong"
        try:
            visit = self._site.visit(request, credential)
        except Denied as error:
            return await self._sign_in_page(request, status_of(error), str(error), place)
        response = RedirectResponse(place or "./", _SEE_OTHER)
        response.set_cookie(
            self._cookie,
            self._sign_ins.begin(credential, visit.identity),
            path=request.scope.get("root_path", "") + "/",
            secure=came_over_tls(request),
            httponly=True,
            samesite="strict",
        )
        return response

    async def _sign_out(self, request: Request) -> Response:
        check_same_origin(request)
        self._sign_ins.end(request.cookies.get(self._cookie, ""))
        response = RedirectResponse("sign-in", _SEE_OTHER)
        response.delete_cookie(self._cookie, path=request.scope.get("root_path", "") + "/")
        return response

    def _credential(self, request: Request) -> str:
        """Return what a request shows: in its header, or by its cookie."""
        shown = bearer_of(request)
        cookie = request.cookies.get(self._cookie, "")
        return shown or (self._sign_ins.credential_of(cookie) if cookie else "")

    # ------------------------------------------------------------------ other answers

    async def _static(self, request: Request) -> Response:
        return static_file(_page_name(request))

    async def _error(self, request: Request, status: int, error: LockringError) -> Response | None:
        if "text/html" not in request.headers.get("accept", "") or wants_json(request):
            return None
        if isinstance(error, Unauthenticated):
            here = _page_name(request)
            place = _place(page_url(here, **dict(request.query_params))) if request.method == "GET" else ""
            was_refused = bool(request.cookies.get(self._cookie))
            return await self._sign_in_page(request, status, str(error) if was_refused else "", place)
        return await self._templates.page(
            "error.html",
            status,
            **self._around(request),
            title=_TITLES.get(status, "There is no answer"),
            text=str(error),
            is_denied=isinstance(error, Denied),
            # It shows the page once there is an answer again.
            follows=status == _UNAVAILABLE and request.method == "GET",
        )

    async def _sign_in_page(self, request: Request, status: int, problem: str, place: str) -> Response:
        return await self._templates.page(
            "sign-in.html", status, **self._around(request), problem=problem, place=place
        )


async def _or_problem(answer: Awaitable[T]) -> T | str:
    """Return an answer, or why there is none."""
    try:
        return await answer
    except LockringError as error:
        return str(error)


_TITLES: Final = {
    400: "That cannot be asked",
    403: "Not allowed",
    404: "There is no such node",
    409: "That did not work",
    500: "This server has a bug",
    503: "No answer for now",
}

_PLACES: Final = frozenset(
    {"", "members", "locks", "lock", "groups", "group", "events", "break", "drain", "undrain"}
)


def _place(text: str) -> str:
    """Return a page of ours to go on with, "" for anything else."""
    page, _, query = text.partition("?")
    if page.removeprefix("./") not in _PLACES or not query.isascii() or not query.isprintable():
        return ""
    return text if page else ""


def _page_name(request: Request) -> str:
    """Return the name of a page: its path without slashes, and without the prefix of a proxy."""
    prefix: str = request.scope.get("root_path", "")
    return str(request.scope["path"]).removeprefix(prefix).strip("/")


def _lock_name(request: Request) -> LockName:
    return check_lock_name(name_of(request))


def _token(text: str) -> Generation:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _TOKEN_DIGITS_MAX else 0
    if not 0 < number <= GENERATION_MAX:
        raise InvalidRequest("token is the fencing token of a holder, a positive whole number")
    return Generation(number)
