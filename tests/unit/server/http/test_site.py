"""The pages of a site: which are answered, to which clients, and what is said of failures."""

from __future__ import annotations

import json
import logging

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from lockring.core.access import (
    HTTP_REQUIREMENTS,
    Condition,
    Grantee,
    Quota,
    Requirement,
    Verb,
    compile_permissions,
    parse_rule,
)
from lockring.errors import Overloaded, Unauthenticated
from lockring.protocol.identities import Identity
from lockring.server.http.pages import Page, name_of
from lockring.server.http.parts import Check
from lockring.server.http.site import BODY_BYTES_MAX, _PageApp
from lockring.server.http.visits import visit_of
from tests.unit.net.serving import run
from tests.unit.server.http.serving import Gate, part, serving

GOOD = Check("store", True)
BAD = Check("lease", False, "there is none")


def grantee(*rules: str, enforced: bool = True) -> Grantee:
    permissions = compile_permissions(tuple(parse_rule(each, "r") for each in rules))
    return Grantee(Identity("token", "ops"), permissions, Quota("ops"), is_enforced=enforced)


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HTTP_REQUIREMENTS, "GET /t/free", Requirement(Condition.FREE))
    monkeypatch.setitem(HTTP_REQUIREMENTS, "POST /t/free", Requirement(Condition.FREE))
    monkeypatch.setitem(HTTP_REQUIREMENTS, "GET /t/locks/{name:path}", Requirement(Condition.NAME, Verb.READ))
    monkeypatch.setitem(HTTP_REQUIREMENTS, "GET /t/lock", Requirement(Condition.NAME, Verb.READ))
    monkeypatch.setitem(HTTP_REQUIREMENTS, "GET /t/admin", Requirement(Condition.EVERYTHING, Verb.ADMIN))


async def shows(request: Request) -> Response:
    visit = visit_of(request)
    return PlainTextResponse(f"{visit.identity} {visit.may(Verb.BREAK, 'jobs/1')}")


async def reads(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


# ----------------------------------------------------------------------- health


def test_a_server_that_answers_lives() -> None:
    async def scenario() -> None:
        async with serving() as served:
            for path in ("/livez", "/healthz"):
                assert (await served.get(path))[::2] == (200, "live\n")
            assert json.loads((await served.get("/livez?format=json")).body) == {"live": True}
            assert (await served.get("/livez", method="HEAD"))[::2] == (200, "")

    run(scenario())


def test_a_server_is_ready_if_every_condition_of_every_part_holds() -> None:
    async def scenario() -> None:
        async with serving(parts=[part(GOOD), part(GOOD)]) as served:
            assert (await served.get("/readyz"))[::2] == (200, "ready\n")
            verbose = await served.get("/readyz?verbose")
            assert verbose[::2] == (200, "[+] node store\n[+] node store\nready\n")
        async with serving(parts=[part(GOOD), part(BAD)]) as served:
            answer = await served.get("/readyz")
            assert answer[::2] == (503, "[+] node store\n[-] node lease: there is none\nnot ready\n")
            answer = await served.get("/readyz", "Accept: application/json")
            assert answer.status == 503
            assert json.loads(answer.body)["checks"][1] == {
                "server": "node",
                "name": "lease",
                "ok": False,
                "note": "there is none",
            }

    run(scenario())


@pytest.mark.parametrize(("leads", "status"), [(True, 200), (False, 503), (None, 503)])
def test_the_leader_alone_says_that_it_leads(leads: bool | None, status: int) -> None:
    async def scenario() -> None:
        async with serving(parts=[part(), part(leads=leads)]) as served:
            assert (await served.get("/leader")).status == status

    run(scenario())


# ----------------------------------------------------------------------- rights


def test_a_page_without_a_row_in_the_table_is_refused() -> None:
    async def scenario() -> None:
        async with serving(Page("/t/unknown", shows), gate=Gate(grantee("admin"))) as served:
            assert (await served.get("/t/unknown")).status == 403

    run(scenario())


def test_a_name_in_the_path_is_the_name_that_needs_the_right() -> None:
    async def scenario() -> None:
        gate = Gate(grantee("read jobs/*"))
        async with serving(Page("/t/locks/{name:path}", shows), gate=gate) as served:
            token = "Authorization: Bearer lr_x"
            assert (await served.get("/t/locks/jobs/1", token))[::2] == (200, "token ops False")
            refused = await served.get("/t/locks/other", token, "Accept: application/json")
            assert refused.status == 403
            assert json.loads(refused.body)["error"] == "denied"
            assert gate.shown == ["lr_x", "lr_x"]
            assert [(each.act, each.outcome, each.name) for each in gate.entries] == [
                ("denied", "refused", "other")
            ]

    run(scenario())


def test_where_rights_are_only_tried_out_a_page_is_answered_and_the_missing_right_reported() -> None:
    async def scenario() -> None:
        gate = Gate(grantee("read nothing", enforced=False))
        async with serving(Page("/t/locks/{name:path}", shows), gate=gate) as served:
            assert (await served.get("/t/locks/x"))[::2] == (200, "token ops True")
            assert [each.outcome for each in gate.entries] == ["would-refuse"]

    run(scenario())


@pytest.mark.parametrize(("rules", "status"), [(("admin",), 200), (("read *", "break *"), 403)])
def test_a_page_for_administrators_is_for_them_alone(rules: tuple[str, ...], status: int) -> None:
    async def scenario() -> None:
        async with serving(Page("/t/admin", shows), gate=Gate(grantee(*rules))) as served:
            assert (await served.get("/t/admin")).status == status

    run(scenario())


def test_a_client_that_proves_nothing_is_asked_for_a_token_and_health_stays_free() -> None:
    async def scenario() -> None:
        gate = Gate(error=Unauthenticated("show a token"))
        async with serving(Page("/t/admin", shows), gate=gate) as served:
            answer = await served.get("/t/admin")
            assert answer[::2] == (401, "show a token\n")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert (await served.get("/livez")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    "headers", [["Authorization: Basic abc"], ["Authorization: Bearer a", "Authorization: Bearer b"]]
)
def test_a_header_that_is_no_bearers_is_refused(headers: list[str]) -> None:
    async def scenario() -> None:
        async with serving(Page("/t/admin", shows), gate=Gate(grantee("admin"))) as served:
            assert (await served.get("/t/admin", *headers)).status == 401

    run(scenario())


def test_a_page_may_ask_for_more_than_its_row() -> None:
    async def breaks(request: Request) -> Response:
        visit_of(request).require(Verb.BREAK, "jobs/1")
        return PlainTextResponse("broken")

    async def scenario() -> None:
        async with serving(Page("/t/locks/{name:path}", breaks), gate=Gate(grantee("read *"))) as served:
            assert (await served.get("/t/locks/jobs/1")).status == 403
        async with serving(Page("/t/locks/{name:path}", breaks), gate=Gate(grantee("admin"))) as served:
            assert (await served.get("/t/locks/jobs/1")).status == 200

    run(scenario())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/t/lock?name=jobs/1", 200),
        ("/t/lock?name=secret", 403),
        ("/t/lock", 403),
        ("/t/lock?name=jobs/1&name=secret", 403),
        ("/t/lock?name=secret&name=jobs/1", 200),
    ],
)
def test_the_right_is_asked_for_the_name_that_the_page_takes(path: str, status: int) -> None:
    async def named(request: Request) -> Response:
        return PlainTextResponse(name_of(request))

    async def story() -> None:
        async with serving(Page("/t/lock", named), gate=Gate(grantee("read jobs/*"))) as site:
            answer = await site.get(path)
            assert answer.status == status
            assert answer.body == "jobs/1" or status == 403

    run(story())


# ----------------------------------------------------------------------- names, prefix, failures


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("[::1", 421),
        ("localhost:99999x", 421),
        ("LOCKS.example.", 200),
        ("locks.example:9701", 200),
        ("localhost", 200),
        ("10.1.2.3:80", 200),
        ("[::1]:9701", 200),
    ],
)
def test_a_request_under_an_unknown_name_is_refused(host: str, status: int) -> None:
    async def scenario() -> None:
        async with serving(hosts=["locks.example"]) as served:
            assert (await served.get("/livez", host=host)).status == status

    run(scenario())


def test_the_prefix_of_a_proxy_is_taken_off_and_need_not_be_there() -> None:
    async def scenario() -> None:
        async with serving(prefix="/a/b") as served:
            assert (await served.get("/a/b/livez")).status == 200
            assert (await served.get("/livez")).status == 200
            assert (await served.get("/a/blivez")).status == 404
            assert (await served.get("/a/b")).status == 404

    run(scenario())


def test_an_answer_lets_a_browser_do_nothing_unless_its_page_says_so() -> None:
    async def free(request: Request) -> Response:
        return PlainTextResponse("x", headers={"Cache-Control": "max-age=60"})

    async def scenario() -> None:
        async with serving(Page("/t/free", free)) as served:
            headers = (await served.get("/t/free")).headers
            assert headers["cache-control"] == "max-age=60"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert "server" not in headers

    run(scenario())


def test_a_bug_is_logged_with_a_number_and_the_client_sees_the_number_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("secret detail")

    async def scenario() -> None:
        async with serving(Page("/t/free", broken)) as served:
            answer = await served.get("/t/free")
            (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
            assert answer.status == 500
            assert record.fields["number"] in answer.body
            assert "secret" not in answer.body

    run(scenario())


def test_an_error_of_lockring_is_an_answer_and_not_a_bug() -> None:
    async def busy(request: Request) -> Response:
        raise Overloaded("too much at once")

    async def scenario() -> None:
        async with serving(Page("/t/free", busy)) as served:
            assert (await served.get("/t/free"))[::2] == (503, "too much at once\n")

    run(scenario())


def test_a_body_that_is_too_long_is_refused() -> None:
    async def scenario() -> None:
        async with serving(Page("/t/free", reads, methods=("POST",))) as served:
            fits = await served.ask(
                f"POST /t/free HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                f"Content-Length: {BODY_BYTES_MAX}\r\n\r\n" + "x" * BODY_BYTES_MAX
            )
            assert fits[::2] == (200, str(BODY_BYTES_MAX))
            declared = await served.get("/t/free", f"Content-Length: {BODY_BYTES_MAX + 1}", method="POST")
            assert declared.status == 413
            chunk = f"{BODY_BYTES_MAX + 1:x}\r\n" + "x" * (BODY_BYTES_MAX + 1) + "\r\n0\r\n\r\n"
            sent = await served.ask(
                f"POST /t/free HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            )
            assert sent.status == 413

    run(scenario())


def test_each_route_of_a_site_looks_at_the_row_of_its_page() -> None:
    async def scenario() -> None:
        async with serving(Page("/t/free", reads, methods=("GET", "POST"))) as served:
            assert {type(route.app) for route in served.site._router.routes} == {_PageApp}

    run(scenario())
