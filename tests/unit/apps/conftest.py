"""A bucket on a real server, shared by the tests here; each test has its own bucket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.s3_server import CREDENTIALS, client_of, s3_server

PAGE_KEYS = 100
"""Keys on a page of a list. Amazon's are ten times as long, which takes this server ten times as long to fill."""

_numbers = itertools.count(1)


class Bucket(NamedTuple):
    """A bucket of one test."""

    endpoint_url: str
    name: str
    s3: Any

    def put(self, *keys: str, **more: Any) -> None:
        """Write objects without content."""
        for key in keys:
            self.s3.put_object(Bucket=self.name, Key=key, Body=b"", **more)

    def keys(self) -> list[str]:
        """The keys in the bucket."""
        return [each["Key"] for each in self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])]


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3_server(page_keys=PAGE_KEYS) as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    s3 = client_of(s3_url)
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    yield Bucket(s3_url, name, s3)
    s3.close()
