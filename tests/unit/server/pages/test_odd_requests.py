"""Requests with odd headers, forms and queries: none is taken for a bug of the server."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.core.access import Grantee, Quota, compile_permissions, parse_rule
from lockring.net.openers import open_plain
from lockring.protocol.identities import Identity
from lockring.server.http.basics import basic_pages
from lockring.server.http.hosts import KnownHosts
from lockring.server.http.protocol import HttpClient
from lockring.server.http.site import HttpSite
from lockring.server.pages.dashboard import Dashboard
from tests.unit.server.http.serving import Gate

FORM = b"application/x-www-form-urlencoded"
OURS = (b"sec-fetch-site", b"same-origin")
HTML = (b"accept", b"text/html")
RULES = tuple(parse_rule(each, "r") for each in ("read *", "admin", "break *", "drain *"))
OPS = Grantee(Identity("token", "ops"), compile_permissions(RULES), Quota("ops"))


async def status_of(
    method: str,
    path: str,
    query: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes | None = b"",
) -> int:
    """Return the status of the answer to a request; a body that is None does not come."""
    dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
    site = HttpSite([*basic_pages([]), *dashboard.pages()], gate=Gate(OPS), hosts=KnownHosts([]))
    dashboard.attach(site)
    site.is_ending.set()  # so that streams end
    messages = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    host = () if any(name == b"host" for name, _ in headers) else ((b"host", b"localhost"),)
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "scheme": "http",
        "query_string": query,
        "headers": [*host, *headers],
        "server": ("127.0.0.1", 1),
        "state": {"client": HttpClient(None, "127.0.0.1:2")},
    }
    await site(scope, receive, send)
    return statuses[0] if statuses else 0


def pages() -> list[tuple[str, str]]:
    found = [*basic_pages([]), *Dashboard(list, open_plain, is_server=False, cookie="c").pages()]
    return [(method, page.path) for page in found for method in page.methods]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "status"),
    [
        ("POST", "/sign-in", b"", ((b"origin", b"http://["),), b"", 403),
        ("POST", "/sign-out", b"", ((b"referer", b"http://[x"),), b"", 403),
        ("POST", "/drain", b"name=N1", (OURS, (b"content-type", FORM)), b"form=%C3%A9", 403),
        ("POST", "/drain", b"name=N1", (OURS,), None, 400),
        ("GET", "/break", b"name=x&token=" + b"9" * 5_000, (), b"", 400),
        ("GET", "/break", b"name=x&token=" + b"9" * 20, (), b"", 400),
        ("GET", "/break", b"name=x&token=" + b"0" * 20 + b"9" * 30, (), b"", 400),
        ("GET", "/metrics", b"", ((b"accept", b"application/openmetrics-text; version=abc"),), b"", 200),
        ("GET", "/metrics", b"", ((b"accept", b"text/plain;version=1.x;escaping=allow-utf-8"),), b"", 200),
        ("GET", "/locks", b"page=x", (HTML,), b"", 503),
        ("GET", "/livez", b"", ((b"host", b"[127.0.0.1]"),), b"", 421),
    ],
)
def test_a_request_that_cannot_be_meant_so_is_refused_or_answered_in_the_usual_form(
    method: str, path: str, query: bytes, headers: Any, body: bytes | None, status: int
) -> None:
    assert asyncio.run(status_of(method, path, query, headers, body)) == status


PIECES = st.sampled_from(
    ["http://[", "http://", "[", "]", "::1", "127.0.0.1", "localhost", ":", "/", "application/openmetrics-text", "text/plain",
     "text/html", "application/json", ";version=", ";escaping=", "allow-utf-8", "abc", "1.x", "1.0.0", ",", ";", "=", "Bearer ",
     "lr_", "eyJ", ".", "c=", '"', "same-origin", "é", "\x80", "\x00", "9" * 30, "9" * 5_000, "-1", "0", "group:", "json",
     "stream", "50", "held", "N1", "\u202e", "%", "%C3", "+", "&", " ", "\t", "yes"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=4).map("".join)
HEADERS = st.tuples(
    st.sampled_from(
        [b"origin", b"referer", b"sec-fetch-site", b"accept", b"authorization", b"cookie", b"content-type",
         b"content-length", b"host", b"accept-encoding", b"range", b"if-none-match"]
    ),
    TEXTS.map(lambda text: text.encode("utf-8", "replace").translate(None, b"\r\n\0").strip()),
)  # fmt: skip
FIELDS = st.tuples(
    st.sampled_from(
        ["page", "format", "token", "name", "limit", "prefix", "text", "owner", "after", "mode", "show", "kind",
         "notice", "next", "form", "force", "credential", "verbose", "self", ""]
    ),
    TEXTS.map(lambda text: quote(text.encode("utf-8", "replace"))) | TEXTS,
)  # fmt: skip
QUERIES = st.lists(FIELDS, max_size=5).map(
    lambda fields: "&".join(f"{name}={value}" for name, value in fields).encode("utf-8", "replace")
)


@given(
    st.sampled_from(pages()),
    QUERIES,
    st.lists(HEADERS, max_size=3),
    st.sampled_from([(), (OURS, (b"content-type", FORM)), (HTML,), ((b"content-type", FORM),)]),
    QUERIES | st.binary(max_size=20) | st.none(),
)
def test_no_odd_header_form_or_query_is_a_bug_to_any_page(
    page: tuple[str, str],
    query: bytes,
    odd: list[tuple[bytes, bytes]],
    usual: tuple[tuple[bytes, bytes], ...],
    body: bytes | None,
) -> None:
    assert asyncio.run(status_of(*page, query, (*odd, *usual), body)) not in (0, 500)
