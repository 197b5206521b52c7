"""Takes the pictures of the dashboard for the documentation: `.venv/bin/python -m tests.browser.pictures`.

A cluster does some work, and a node fails. Look at each picture afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal, NamedTuple

from playwright.sync_api import Browser, sync_playwright

from lockring.testing import COORDINATOR, LocalCluster
from tests.browser.conftest import QUICK, Work
from tests.browser.install import CHROMIUM
from tests.browser.visiting import DESK, PHONE, TABLET, visiting

FOLDER: Final = Path(__file__).parents[2] / "docs" / "dashboard"


class Picture(NamedTuple):
    """A picture: the name of its file, the page, the size of the screen, and the scheme of colours."""

    name: str
    path: str
    width: int
    height: int
    scheme: Literal["light", "dark"] = "light"


WELL: Final = (
    Picture("overview-1440", "", DESK, 940),
    Picture("overview-320-dark", "", PHONE, 1000, "dark"),
    Picture("locks-1440-dark", "locks", DESK, 760, "dark"),
    Picture("locks-320", "locks?show=waiting", PHONE, 900),
    Picture("lock-768", "lock?name=nightly", TABLET, 980),
    Picture("group-768-dark", "group?name=group:workers", TABLET, 560, "dark"),
)
_SLOW: Final = {"stabilization_s": 8.0}
"""How long new copies wait after a failure, so that a picture of that time can be taken."""
FAILED: Final = (Picture("failover-768", "", TABLET, 900),)


def take(
    browser: Browser, url: str, pictures: tuple[Picture, ...], *, fault: Callable[[], object] | None = None
) -> None:
    """Take pictures of the pages at a URL; with a fault, once they show that something is wrong."""
    for each in pictures:
        with visiting(browser, url, width=each.width, color_scheme=each.scheme) as visitor:
            visitor.may_be_out = True
            visitor.page.set_viewport_size({"width": each.width, "height": each.height})
            visitor.open(each.path)
            visitor.wait_live()
            if fault is not None:
                fault()
                visitor.page.locator("section.status:not(.ok)").wait_for()
            visitor.page.screenshot(path=FOLDER / f"{each.name}.png")
            print(f"{each.name}.png", (FOLDER / f"{each.name}.png").stat().st_size // 1024, "KiB")


def main() -> int:
    """Take all pictures, and return the exit code."""
    FOLDER.mkdir(exist_ok=True)
    with ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(nodes=4, http=True, **QUICK | _SLOW))
        work = Work(cluster.servers)
        stack.callback(work.end)
        url = f"http://{cluster.http_address_of(COORDINATOR)}"
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        stack.callback(browser.close)
        take(browser, url, WELL)
        take(browser, url, FAILED, fault=lambda: cluster.kill("N2"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
