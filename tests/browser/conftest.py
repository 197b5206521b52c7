"""A browser for all tests, and a cluster with work for those that leave it whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from playwright.sync_api import Browser, sync_playwright

import lockring
from lockring.testing import COORDINATOR, LocalCluster
from tests.browser.install import CHROMIUM
from tests.processes import PATIENCE_S, eventually

QUICK = {"stabilization_s": 0.3, "backup_lease_s": 0.5, "coordinator_lease_s": 15.0, "member_lease_s": 2.0}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    assert CHROMIUM.exists(), "there is no Chromium: run .venv/bin/python -m tests.browser.install"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


class Work:
    """Clients that hold, wait for and share locks."""

    def __init__(self, servers: str) -> None:
        self._stack = ExitStack()
        self.web = self._client(servers, "billing@web-1:4711")
        self.batch = self._client(servers, "nightly@batch:77")
        self.web_locks = [self.web.lock(f"jobs/invoice/{number:03d}").acquire() for number in range(60)]
        self.nightly = self.batch.lock("nightly").acquire()
        self.granted: lockring.Grant | None = None
        self.waiter = threading.Thread(target=self._wait, daemon=True)
        self.waiter.start()
        self.memberships = [
            client.group("workers").join(f"worker-{place}")
            for place, client in enumerate((self.web, self.batch))
        ]
        eventually(lambda: bool(self.web.describe("nightly").waiters))

    def _client(self, servers: str, owner: str) -> lockring.Client:
        return self._stack.enter_context(lockring.Client(servers, owner=owner, connect_timeout=PATIENCE_S))

    def _wait(self) -> None:
        with suppress(lockring.LockringError):
            self.granted = self.web.lock("nightly").acquire()

    def end(self) -> None:
        self._stack.close()
        self.waiter.join(PATIENCE_S)


class Place:
    """A cluster at work, and the URL of its pages at the coordinator."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.work = Work(cluster.servers)
        self.url = f"http://{cluster.http_address_of(COORDINATOR)}"


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with LocalCluster(nodes=3, http=True, **QUICK) as cluster:
        found = Place(cluster)
        yield found
        found.work.end()
