"""The pages where identities and rights are looked at: signing in, seeing what may be seen, and acting."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest
from playwright.sync_api import Browser, expect

from lockring.addresses import split_address
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.browser.visiting import PHONE, Visitor, visiting
from tests.cluster.conftest import CALM
from tests.cluster.guarded import Guarded
from tests.processes import PATIENCE_S


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    access = AccessSettings(
        auth="enforcing", acl_file=str(directory / "acl.toml"), audit_log=str(directory / "audit.log")
    )
    cluster = LocalCluster(nodes=2, tls=True, http=True, access=access, client_auth="optional", **CALM)
    made = Guarded(cluster, directory)
    with cluster:
        yield made


def url(guarded: Guarded) -> str:
    return f"https://{guarded.cluster.http_address_of(COORDINATOR)}"


def sign_in(visitor: Visitor, token: str) -> None:
    visitor.page.get_by_label("Token").fill(token)
    visitor.page.get_by_label("Token").press("Enter")


def test_a_viewer_signs_in_with_a_token_and_sees_and_does_what_its_rights_allow(
    browser: Browser, guarded: Guarded
) -> None:
    with (
        guarded.client("web-1") as holder,
        guarded.client("test") as admin,
        visiting(browser, url(guarded), width=PHONE, ignore_https_errors=True) as visitor,
    ):
        mine = holder.lock("jobs/x").acquire()
        secret = admin.lock("secret/plan").acquire()
        visitor.may_be_out = True  # the browser notes each answer that is an error
        visitor.open("locks?text=x")
        visitor.see("Paste a token")
        visitor.check_looks()
        sign_in(visitor, "lr_wrong")
        expect(visitor.page.get_by_role("alert")).to_be_visible()
        sign_in(visitor, guarded.tokens["web-1"])
        visitor.page.wait_for_url("**/locks?text=x")
        visitor.see("jobs/x")
        visitor.see("token web-1")
        (cookie,) = visitor.page.context.cookies()
        assert cookie["httpOnly"] is cookie["secure"] is True
        assert cookie["sameSite"] == "Strict"
        assert guarded.tokens["web-1"] not in cookie["value"]
        visitor.open("locks")
        visitor.see("1 of 1 lock")
        assert visitor.page.get_by_text("secret/plan").count() == 0
        visitor.open("lock?name=secret/plan")
        visitor.see("Not allowed")
        visitor.check_looks()
        visitor.open()
        visitor.see("Not allowed")
        visitor.open("lock?name=jobs/x")
        session = visitor.page.locator(".id").text_content()
        visitor.page.get_by_role("link", name="Break").click()
        visitor.page.get_by_text("At once.", exact=True).click()
        visitor.page.get_by_role("button", name="Break the lease").click()
        visitor.see("The lock was freed.")
        assert session
        lines = guarded.audited(("act", "break"))
        (broken,) = (each for each in lines if each["act"] == "break")
        assert (broken["who"], broken["how"], broken["name"]) == ("web-1", "token", "jobs/x")
        visitor.page.get_by_role("button", name="Sign out").click()
        visitor.open("locks")
        visitor.see("Paste a token")
        assert not mine.held
        assert secret.held


def test_a_viewer_without_the_right_sees_no_way_to_break_and_no_session(
    browser: Browser, guarded: Guarded
) -> None:
    with (
        guarded.client("web-1") as holder,
        visiting(browser, url(guarded), ignore_https_errors=True) as visitor,
    ):
        held = holder.lock("jobs/y").acquire()
        visitor.may_be_out = True
        visitor.open("lock?name=jobs/y")
        sign_in(visitor, guarded.tokens["web-2"])
        visitor.see("Held by")
        assert visitor.page.get_by_role("link", name="Break").count() == 0
        shown = visitor.page.locator(".id").text_content()
        visitor.open(f"break?name=jobs/y&token={held.fencing_token}")
        visitor.see("Not allowed")
        with visiting(browser, url(guarded), ignore_https_errors=True) as owner:
            owner.may_be_out = True
            owner.open("lock?name=jobs/y")
            sign_in(owner, guarded.tokens["test"])
            owner.see("Held by")
            assert owner.page.locator(".id").text_content() != shown


def test_a_form_of_another_site_changes_nothing(guarded: Guarded) -> None:
    with guarded.client("web-1") as holder:
        held = holder.lock("jobs/z").acquire()
        connection = http.client.HTTPSConnection(
            *split_address(guarded.cluster.http_address_of(COORDINATOR)),
            timeout=PATIENCE_S,
            context=ssl.create_default_context(cafile=guarded.bare.ca),
        )
        place = f"/break?name={quote('jobs/z')}&token={held.fencing_token}"

        def send(path: str, fields: dict[str, str], **headers: str) -> tuple[int, str]:
            head = {"Content-Type": "application/x-www-form-urlencoded"}
            head |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST", path, urlencode(fields), head)
            answer = connection.getresponse()
            cookie = answer.getheader("Set-Cookie") or ""
            answer.read()
            return answer.status, cookie.partition(";")[0]

        credential = {"credential": guarded.tokens["web-1"]}
        assert send("/sign-in", credential)[0] == 403
        assert send("/sign-in", credential, Sec_Fetch_Site="cross-site")[0] == 403
        status, cookie = send("/sign-in", credential, Sec_Fetch_Site="same-origin")
        assert status == 303
        for site in ("cross-site", "same-site", "none"):
            assert send(place, {"force": "yes"}, Cookie=cookie, Sec_Fetch_Site=site)[0] == 403
        assert send(place, {"force": "yes"}, Cookie=cookie, Sec_Fetch_Site="same-origin")[0] == 403
        wrong = {"force": "yes", "form": "0" * 64}
        assert send(place, wrong, Cookie=cookie, Sec_Fetch_Site="same-origin")[0] == 403
        assert held.held
        # A program that shows its token means the request, and needs no form.
        bearer = f"Bearer {guarded.tokens['web-1']}"
        connection.request(
            "POST",
            place + "&format=json",
            "force=yes",
            {"Authorization": bearer, "Content-Type": "application/x-www-form-urlencoded"},
        )
        answer = connection.getresponse()
        assert json.loads(answer.read()) == {"name": "jobs/z", "freed": True, "free_within_s": 0.0}
        connection.close()
