"""The pages in a real browser: how they look, follow what happens, and act."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, Route, expect

import lockring
from lockring.testing import COORDINATOR, LocalCluster
from tests.browser.conftest import QUICK, Place
from tests.browser.visiting import DESK, PHONE, SCHEMES, TABLET, Visitor, visiting
from tests.processes import PATIENCE_S, eventually

PAGES = {
    "": "Who blocks",
    "members": "N1",
    "locks": "jobs/invoice/000",
    "locks?show=waiting": "nightly",
    "lock?name=nightly": "Queue",
    "lock?name=free": "the lock is free",
    "groups": "workers",
    "group?name=group:workers": "worker-0",
    "events": "joined",
    "break?name=nightly&token=1": "Nothing is left to break",
    "drain?name=N1": "All its slots move",
    "undrain?name=N1": "may have slots again",
    "sign-in": "Paste a token",
}
"""Each page, and a text that shows that it is there."""


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_is_accessible_and_fits_a_phone_and_a_desk(
    browser: Browser, place: Place, scheme: str
) -> None:
    with visiting(browser, place.url, color_scheme=scheme, reduced_motion="reduce") as visitor:
        for path, text in PAGES.items():
            visitor.page.set_viewport_size({"width": PHONE, "height": 700})
            visitor.open(path)
            visitor.see(text, within="main")
            visitor.check_looks()
            visitor.page.set_viewport_size({"width": DESK, "height": 900})
            visitor.check_width()


def test_an_error_is_a_page_and_no_traceback(browser: Browser, place: Place) -> None:
    with visiting(browser, place.url, width=TABLET) as visitor:
        visitor.may_be_out = True  # the browser notes each answer that is an error
        visitor.open("locks?limit=7")
        visitor.see("Limit is one of 50, 25, 100")
        visitor.check_looks()
        visitor.open("lock")
        visitor.see("a lock name must not be empty".capitalize())


def test_filters_are_in_the_url_and_survive_what_arrives(browser: Browser, place: Place) -> None:
    with visiting(browser, place.url) as visitor:
        page = visitor.page
        visitor.open("locks")
        visitor.wait_live()
        page.get_by_label("Name begins with").fill("jobs/")
        page.get_by_label("Name has").fill("voice")
        page.get_by_label("Name has").press("Enter")
        page.wait_for_url("**/locks?*prefix=jobs%2F*")
        visitor.see("50 of 60 locks")
        visitor.see("lockring ls jobs/ --limit 50 --text voice")
        page.get_by_role("link", name="Next page").click()
        visitor.see("jobs/invoice/059")
        page.reload()
        expect(page.get_by_label("Name has")).to_have_value("voice")
        # Text that is being typed stays, while the page follows.
        page.get_by_label("Holder or waiter").press_sequentially("half a w")
        before = page.locator("tbody td").nth(1).text_content()
        eventually(lambda: page.locator("tbody td").nth(1).text_content() != before)
        expect(page.get_by_label("Holder or waiter")).to_have_value("half a w")
        expect(page.get_by_label("Holder or waiter")).to_be_focused()
        visitor.open("locks?owner=BATCH&show=held")
        visitor.see("nightly")
        assert page.locator("tbody tr").count() == 2


def test_a_selection_and_the_focus_stay_while_the_page_follows(browser: Browser, place: Place) -> None:
    with visiting(browser, place.url) as visitor:
        page = visitor.page
        visitor.open("lock?name=nightly")
        visitor.wait_live()
        page.locator("h1").select_text()
        page.get_by_role("link", name="Break").focus()
        held = page.locator("#content .facts dd").first
        before = held.text_content()
        eventually(lambda: held.text_content() != before)
        assert page.evaluate("getSelection().toString()") == "nightly"
        expect(page.get_by_role("link", name="Break")).to_be_focused()
        page.get_by_role("button", name="Pause").click()
        paused = held.text_content()
        page.wait_for_timeout(5_000)  # two looks of the stream
        assert held.text_content() == paused
        page.get_by_role("button", name="Go on").click()
        eventually(lambda: held.text_content() != paused)


def test_a_lease_is_broken_by_the_keyboard_alone(browser: Browser, place: Place) -> None:
    losses: list[str] = []
    client = place.work.web
    grant = client.lock("to/break ?&#").acquire()
    grant.on_lost(lambda lost: losses.append(lost.reason))
    with visiting(browser, place.url) as visitor:
        page = visitor.page
        visitor.open("locks?prefix=to/")
        visitor.tab_to("to/break ?&#")
        page.keyboard.press("Enter")
        visitor.see("Held by billing@web-1:4711")
        visitor.tab_to("Break")
        page.keyboard.press("Enter")
        visitor.see("Break this lease?")
        visitor.tab_to("Break the lease")
        page.keyboard.press("Enter")
        visitor.see("The lease was broken.")
        visitor.check_looks()
    eventually(lambda: losses == ["broken"] and not grant.held)


def test_a_node_is_drained_and_has_slots_again_without_scripts(browser: Browser, place: Place) -> None:
    with visiting(browser, place.url, java_script_enabled=False) as visitor:
        page = visitor.page
        visitor.open("members")
        page.locator("#member-N3").get_by_role("link", name="Drain").click()
        page.get_by_role("button", name="Drain N3").click()
        visitor.see("The node began to drain")
        visitor.see("draining", within="#member-N3")
        page.locator("#member-N3").get_by_role("link", name="Undrain").click()
        page.get_by_role("button", name="Undrain N3").click()
        visitor.see("may have slots again")
    place.cluster.wait_until_stable()


def test_a_page_is_loaded_again_and_again_where_no_stream_gets_through(
    browser: Browser, place: Place
) -> None:
    with visiting(browser, place.url) as visitor:
        visitor.may_be_out = True

        def refuse(route: Route) -> None:
            route.abort()

        visitor.page.route("**/*format=stream*", refuse)
        visitor.open("lock?name=nightly")
        visitor.wait_live()
        held = visitor.page.locator("#content .facts dd").first
        before = held.text_content()
        eventually(lambda: held.text_content() != before)


def test_every_page_has_the_same_as_json(browser: Browser, place: Place) -> None:
    with visiting(browser, place.url) as visitor:
        page = visitor.page
        shown = {}
        for path in (
            "",
            "members",
            "locks",
            "lock?name=nightly",
            "groups",
            "group?name=group:workers",
            "events",
        ):
            visitor.open(path)
            page.get_by_role("link", name="As JSON").click()
            page.wait_for_url("**/*format=json*")
            shown[path] = json.loads(page.locator("body").text_content() or "")
        assert {each["node"] for each in shown["members"]["members"]} == {"N1", "N2", "N3"}
        assert shown[""]["blocked"]["locks"][0]["name"] == "nightly"
        assert shown["lock?name=nightly"]["holders"][0]["owner"] == "nightly@batch:77"
        assert shown["lock?name=nightly"]["waiters"][0]["owner"] == "billing@web-1:4711"
        assert sum(each["key_slots"] for each in shown["group?name=group:workers"]["members"]) == 4096


def _see_all(visitor: Visitor, paths: tuple[str, ...]) -> None:
    for path in paths:
        visitor.open(path)
        visitor.page.locator("main h1").first.wait_for(state="attached")


def test_every_page_opens_during_a_failover_and_follows_the_restart_of_the_coordinator(
    browser: Browser,
) -> None:
    with (
        LocalCluster(nodes=3, http=True, **QUICK) as cluster,
        lockring.Client(cluster.servers, connect_timeout=PATIENCE_S) as client,
        client.lock("held"),
        visiting(browser, f"http://{cluster.http_address_of(COORDINATOR)}", width=TABLET) as visitor,
    ):
        page = visitor.page
        visitor.may_be_out = True
        visitor.open()
        visitor.wait_live()
        expect(page.locator("#verdict")).to_have_text("Every slot is served and has a backup.")
        victim = cluster.primary_of("held")
        cluster.kill(victim)
        _see_all(
            visitor, ("members", "locks", "lock?name=held", "groups", "group?name=group:g", "events", "")
        )
        visitor.see(f"failed over from {victim}")
        expect(page.locator("#verdict")).to_have_text("Every slot is served and has a backup.")
        visitor.check_looks()
        assert page.locator(f'#ring [data-node="{victim}"]').count() == 0
        cluster.kill(COORDINATOR)
        page.locator("#live.off").wait_for()
        cluster.restart(COORDINATOR)
        visitor.wait_live()
        visitor.see("began to lead")
