"""The parts of the dashboard: sign-ins, forms, shared answers, streams, and what a page is made of."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from jinja2 import Environment
from starlette.requests import Request

from lockring.core.access import HTTP_REQUIREMENTS
from lockring.core.client import LocksFound
from lockring.errors import Denied, InvalidRequest, Overloaded, Unauthenticated, Unavailable
from lockring.net.openers import open_plain
from lockring.protocol import HolderRecord, LockRecord
from lockring.protocol.identities import Identity
from lockring.security.tokens import CREDENTIAL_BYTES_MAX
from lockring.server.pages import rendering, sign_ins, streams
from lockring.server.pages.dashboard import Dashboard, _place
from lockring.server.pages.forms import FormTokens, check_same_origin, read_form
from lockring.server.pages.rendering import Templates, page_url
from lockring.server.pages.shared_answers import SharedAnswers
from lockring.server.pages.sign_ins import SignIns
from lockring.server.pages.streams import Streams
from lockring.views.filters import LIMITS, MODES, LockFilter
from lockring.views.locks import HOLDERS_SHOWN, grant_view, lock_view, locks_view
from tests.unit.house.rules import SOURCE
from tests.unit.net.serving import run
from tests.unit.server.http.serving import Answer, Gate, Served, serving

WEB = Identity("token", "web-1")


def request(body: bytes = b"", **headers: str) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


class TestSignIns:
    def test_a_cookie_leads_to_its_credential_until_it_is_ended(self) -> None:
        table = SignIns()
        one, two = table.begin("lr_one", WEB), table.begin("lr_two", WEB)
        assert (table.credential_of(one), table.credential_of(two)) == ("lr_one", "lr_two")
        assert table.credential_of("other") == ""
        table.end(one)
        assert (table.credential_of(one), table.credential_of(two)) == ("", "lr_two")

    def test_a_sign_in_ends_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now_ns = 0
        monkeypatch.setattr(sign_ins, "monotonic_ns", lambda: now_ns)
        table = SignIns()
        used, idle = table.begin("lr_used", WEB), table.begin("lr_idle", WEB)
        for _ in range(3):
            now_ns += sign_ins.IDLE_NS - 1
            assert table.credential_of(used) == "lr_used"
        assert table.credential_of(idle) == ""
        now_ns += sign_ins.IDLE_NS - 1  # it was used all the time, and is a day old
        assert table.credential_of(used) == ""

    def test_the_oldest_gives_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sign_ins, "SIGN_INS_MAX", 3)
        table = SignIns()
        cookies = [table.begin(f"lr_{number}", WEB) for number in range(3)]
        assert table.credential_of(cookies[0]) == "lr_0"  # now the second one was used last
        table.begin("lr_new", WEB)
        assert [table.credential_of(each) for each in cookies] == ["lr_0", "", "lr_2"]
        assert len(table) == 3

    def test_sign_ins_of_one_identity_push_out_none_of_another(self) -> None:
        table = SignIns()
        other = table.begin("lr_ops", Identity("token", "ops"))
        cookies = [table.begin("lr_web", WEB) for _ in range(sign_ins.SIGN_INS_MAX + 1)]
        assert len(table) == sign_ins.SIGN_INS_OF_IDENTITY_MAX + 1
        assert [table.credential_of(each) for each in (other, cookies[0], cookies[-1])] == [
            "lr_ops",
            "",
            "lr_web",
        ]


class TestForms:
    def test_a_form_holds_for_its_viewer_its_action_and_its_name(self) -> None:
        tokens = FormTokens()
        ours = request(sec_fetch_site="same-origin")
        token = tokens.token(WEB, "break", "x")
        tokens.check(ours, token, WEB, "break", "x")
        for identity, action, name in ((None, "break", "x"), (WEB, "drain", "x"), (WEB, "break", "y")):
            with pytest.raises(Denied, match="out of date"):
                tokens.check(ours, token, identity, action, name)
        with pytest.raises(Denied, match="out of date"):
            FormTokens().check(ours, token, WEB, "break", "x")

    @pytest.mark.parametrize(
        ("headers", "is_ours"),
        [
            ({"sec_fetch_site": "same-origin"}, True),
            ({"sec_fetch_site": "same-origin", "origin": "null"}, True),
            ({"sec_fetch_site": "same-site", "origin": "http://h:1", "host": "h:1"}, False),
            ({"sec_fetch_site": "none"}, False),
            ({"origin": "http://h:1", "host": "h:1"}, True),
            ({"origin": "http://h:2", "host": "h:1"}, False),
            ({"origin": "null", "host": "h:1"}, False),
            ({"referer": "http://h:1/lock?name=x", "host": "h:1"}, True),
            ({"host": "h:1"}, False),
        ],
    )
    def test_a_form_says_from_which_site_it_comes(self, headers: dict[str, str], is_ours: bool) -> None:
        if is_ours:
            check_same_origin(request(**headers))
        else:
            with pytest.raises(Denied, match="a page of this site"):
                check_same_origin(request(**headers))

    def test_a_body_that_is_no_form_is_refused(self) -> None:
        form = "application/x-www-form-urlencoded"
        assert asyncio.run(read_form(request(b"a=1&a=2&b=", content_type=form + "; charset=utf-8"))) == {
            "a": "2",
            "b": "",
        }
        assert asyncio.run(read_form(request())) == {}
        for body, kind in ((b"{}", "application/json"), (b"\xff", form), (b"a=1&" * 50, form)):
            with pytest.raises(InvalidRequest):
                asyncio.run(read_form(request(body, content_type=kind)))


def test_viewers_who_ask_the_same_share_an_answer_and_its_failure() -> None:
    async def story() -> None:
        answers, asked = SharedAnswers(), 0
        go = asyncio.Event()

        async def ask() -> int:
            nonlocal asked
            asked += 1
            await go.wait()
            if asked == 2:
                raise Unavailable("gone")
            return asked

        first = asyncio.create_task(answers.get("a", ask))
        leaves = asyncio.create_task(answers.get("a", ask))
        await asyncio.sleep(0)
        leaves.cancel()
        go.set()
        assert await first == await answers.get("a", ask) == 1
        answers.forget()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await answers.get("a", ask)
        assert await answers.get("b", ask) == 3

    asyncio.run(story())


class TestStreams:
    def test_a_stream_says_what_changes_and_ends_with_the_server(self) -> None:
        async def story() -> None:
            is_ending = asyncio.Event()
            following = Streams(is_ending)
            looks: Any = iter(["one", "one", Unavailable("out"), "two\nlines"])

            async def look() -> str:
                found = next(looks, None)
                if found is None:
                    is_ending.set()
                    return "two\nlines"
                if isinstance(found, Exception):
                    raise found
                return str(found)

            response = following.follow(look, is_over=lambda: False)
            assert response.headers["x-accel-buffering"] == "no"
            assert "no-transform" in response.headers["cache-control"]
            said = [chunk async for chunk in response.body_iterator]
            assert said == [
                b"retry: 2000\n\n",
                b'event: content\ndata: "one"\n\n',
                b'event: problem\ndata: "out"\n\n',
                b'event: content\ndata: "two\\nlines"\n\n',
            ]
            assert len(following) == 0

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "LOOK_S", 0.0)
            asyncio.run(story())

    def test_a_silent_stream_says_that_it_is_there_and_an_ended_credential_ends_it(self) -> None:
        async def story() -> None:
            looks = 0

            async def look() -> str:
                nonlocal looks
                looks += 1
                return "same"

            response = Streams(asyncio.Event()).follow(look, is_over=lambda: looks > 2)
            said = [chunk async for chunk in response.body_iterator]
            assert said[2:] == [b": still here\n\n", b": still here\n\n", b'event: over\ndata: ""\n\n']

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "LOOK_S", 0.0)
            patch.setattr(streams, "HEARTBEAT_NS", 0)
            asyncio.run(story())

    def test_streams_have_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "STREAMS_MAX", 0)

        async def look() -> str:
            return ""

        with pytest.raises(Overloaded, match="can be loaded again"):
            Streams(asyncio.Event()).follow(look, is_over=lambda: False)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("locks?prefix=a%2F", "locks?prefix=a%2F"),
        ("./", "./"),
        ("./?x=1", "./?x=1"),
        ("lock?name=x", "lock?name=x"),
        ("", ""),
        ("https://elsewhere/", ""),
        ("//elsewhere/", ""),
        ("sign-out", ""),
        ("locks?a\r\nSet-Cookie: x", ""),
        ("javascript:alert(1)", ""),
    ],
)
def test_a_sign_in_goes_on_with_a_page_of_ours_alone(text: str, place: str) -> None:
    assert _place(text) == place


def test_links_are_relative_and_names_are_escaped() -> None:
    assert page_url("") == "./"
    assert page_url("lock", name="../a?b&c#d e/é") == "lock?name=..%2Fa%3Fb%26c%23d+e%2F%C3%A9"
    assert page_url("locks", text="", after=None) == "locks"


def content(template: str, **values: Any) -> str:
    return asyncio.run(Templates().content(template, **values))


def test_invisible_characters_of_names_are_shown_as_escapes_and_kept_in_fields() -> None:
    odd = "pay\u202etxt\u200b<b>\x1b"
    holder = HolderRecord(odd, "s", 1, 7, 65_000, 10_000, 9_000)
    lock = LockRecord(odd, 5, "a", 0, 1, 7, 0, [holder], [])
    wanted = LockFilter(text=odd)
    found = LocksFound([lock], [(1, 0)], matched=1, has_more=False, unserved_slots=0)
    page = content("locks.html", view=locks_view(found, wanted), wanted=wanted, modes=MODES, limits=LIMITS)
    assert page.count("pay\\u202etxt\\u200b&lt;b&gt;\\x1b") == 2  # the name and the holder
    assert page.count("\u202e") == 2
    assert 'value="pay\u202etxt\u200b&lt;b&gt;\x1b"' in page
    assert 'id="row-pay\u202etxt' in page
    one = content("lock.html", view=lock_view(lock), may_break=True)
    assert "\u202e" not in one
    assert "lock?name=pay%E2%80%AEtxt" in one.replace("break?", "lock?")


def test_the_first_page_has_all_templates_compiled_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: dict[str, threading.Thread] = {}
    compile_one = Environment.compile

    def noted(environment: Environment, source: Any, name: str, *more: Any, **options: Any) -> Any:
        assert name not in compiled
        compiled[name] = threading.current_thread()
        return compile_one(environment, source, name, *more, **options)

    monkeypatch.setattr(Environment, "compile", noted)

    lock = LockRecord("x", 5, "a", 1, 1, 7, 0, [], [])

    async def pages() -> None:
        templates = Templates()
        for token in (1, 2):
            await templates.content("break.html", view=grant_view(lock, token), form_token="t")

    run(pages())
    folder = Path(rendering.__file__).parent / "templates"
    assert compiled.keys() == {path.name for path in folder.iterdir()}
    assert threading.main_thread() not in compiled.values()


def test_a_holder_that_the_page_of_its_lock_leaves_out_can_be_broken_and_one_that_has_gone_cannot() -> None:
    holders = [
        HolderRecord(f"h{place}", "s", 1, 7 + place, 0, 10_000, 9_000) for place in range(HOLDERS_SHOWN + 1)
    ]
    lock = LockRecord("x", 5, "a", 1, 1, 7 + HOLDERS_SHOWN, 0, holders, [])
    assert f"h{HOLDERS_SHOWN}" not in [each.owner for each in lock_view(lock).holders]
    last, gone = (
        content("break.html", view=grant_view(lock, token), form_token="t")
        for token in (7 + HOLDERS_SHOWN, 6)
    )
    assert f"break?name=x&amp;token={7 + HOLDERS_SHOWN}" in last
    assert f"h{HOLDERS_SHOWN}" in last
    assert "No holder has token 6 any more" in gone
    assert "<form" not in gone


def test_every_page_has_a_row_in_the_table_of_rights_and_no_page_of_the_table_is_missing() -> None:
    dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
    pages = {f"{method} {page.path}" for page in dashboard.pages() for method in page.methods}
    basics = {"GET /livez", "GET /healthz", "GET /readyz", "GET /leader"}
    assert pages <= set(HTTP_REQUIREMENTS)
    assert {each for each in HTTP_REQUIREMENTS if each.partition(" /")[2] in _OURS} == pages
    assert not pages & basics


_OURS = {
    "", "members", "locks", "lock", "groups", "group", "events", "break", "drain", "undrain", "sign-in", "sign-out",
    "dashboard.css", "dashboard.js", "icon.svg",
}  # fmt: skip


def test_pages_are_answered_with_the_prefix_of_a_proxy_and_without() -> None:
    async def story() -> None:
        dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
        async with serving(*dashboard.pages(), prefix="/lockring") as site:
            dashboard.attach(site.site)
            moved = await site.get("/lockring")
            assert (moved.status, moved.headers["location"]) == (303, "/lockring/")
            for prefix in ("", "/lockring"):
                style = await site.get(f"{prefix}/dashboard.css")
                assert (style.status, style.headers["content-type"]) == (200, "text/css; charset=utf-8")
                page = await site.get(f"{prefix}/sign-in")
                assert page.status == 200
                assert "default-src 'self'" in page.headers["content-security-policy"]
                assert page.headers["x-content-type-options"] == "nosniff"
                out = await site.get(f"{prefix}/locks", "Accept: text/html")
                assert out.status == 503  # there are no servers
                assert 'data-stream="locks?format=stream"' in out.body
                form = "credential=lr_x&next=locks"
                signed = await post_form(site, f"{prefix}/sign-in", form, "Sec-Fetch-Site: same-origin")
                assert (signed.status, signed.headers["location"]) == (303, "locks")
                cookie = signed.headers["set-cookie"]
                assert f"Path={prefix}/;" in cookie
                assert "HttpOnly" in cookie
                assert "SameSite=strict" in cookie

    run(story())


async def post_form(site: Served, path: str, form: str, *headers: str) -> Answer:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(form)}",
        *headers,
    ]
    return await site.ask("\r\n".join(head) + f"\r\n\r\n{form}")


@pytest.mark.parametrize(
    ("origin", "is_secure"),
    [
        ("https://locks.example.com", True),
        ("http://127.0.0.1", False),
        ("https.example.com", False),
        ("null", False),
    ],
)
def test_a_browser_that_signs_in_through_a_proxy_with_tls_sends_its_cookie_over_tls_alone(
    origin: str, is_secure: bool
) -> None:
    async def story() -> None:
        dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
        async with serving(*dashboard.pages()) as site:
            dashboard.attach(site.site)
            headers = ("Sec-Fetch-Site: same-origin", f"Origin: {origin}")
            signed = await post_form(site, "/sign-in", "credential=lr_x", *headers)
            assert signed.status == 303
            assert ("Secure" in signed.headers["set-cookie"]) == is_secure

    run(story())


@pytest.mark.parametrize(
    ("error", "status"), [(Unauthenticated("the token is unknown"), 401), (Denied("ops has no role"), 403)]
)
def test_a_credential_that_is_not_let_in_is_not_kept_and_the_page_says_why(
    error: Denied, status: int
) -> None:
    async def story() -> None:
        dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
        gate = Gate(error=error)
        async with serving(*dashboard.pages(), gate=gate) as site:
            dashboard.attach(site.site)
            form = "credential=lr_wrong&next=locks"
            answer = await post_form(site, "/sign-in", form, "Sec-Fetch-Site: same-origin")
            assert answer.status == status
            assert "set-cookie" not in answer.headers
            assert str(error) in answer.body
            assert 'value="locks"' in answer.body
            assert gate.shown == ["lr_wrong"]
            assert len(dashboard._sign_ins) == 0

    run(story())


@pytest.mark.parametrize(
    ("credential", "status", "said"),
    [
        ("", 400, "has no token"),
        ("lr_x and more", 400, "several words"),
        ("lr_\xe9", 400, "a character that is in no token"),
        ("x" * (CREDENTIAL_BYTES_MAX + 1), 400, "is too long: a token or JWT has at most 12,288 bytes"),
        (" " + "x" * CREDENTIAL_BYTES_MAX + "\r\n", 303, ""),
    ],
)
def test_a_credential_is_as_long_as_on_any_other_way_and_a_page_says_what_is_wrong_with_it(
    credential: str, status: int, said: str
) -> None:
    async def story() -> None:
        dashboard = Dashboard(list, open_plain, is_server=False, cookie="c")
        async with serving(*dashboard.pages()) as site:
            dashboard.attach(site.site)
            form = urlencode({"credential": credential})
            answer = await post_form(site, "/sign-in", form, "Sec-Fetch-Site: same-origin")
            assert answer.status == status
            assert said in answer.body
            assert ("set-cookie" in answer.headers) == (status == 303)

    run(story())


def test_nothing_in_the_pages_is_from_elsewhere_or_inline() -> None:
    folder = SOURCE / "server" / "pages"
    texts = [*folder.glob("templates/*"), *folder.glob("static/*.css"), *folder.glob("static/*.js")]
    assert len(texts) > 12
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|@import|url\(|<style|\sstyle=|\son\w+=|javascript:", text), path
        if path.suffix == ".html":
            assert not re.search(r"<script(?! type=\"module\" src=\"dashboard\.js\"></script>)", text), path
            assert not re.search(r"""(?:href|src|action)="/""", text), path
            assert "| safe" not in text, path
