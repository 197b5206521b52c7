"""Arguments of public calls are checked before any I/O."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from typing import Any

import pytest

import lockring
import lockring.aio
from lockring.client.arguments import default_owner, server_addresses
from lockring.errors import ConfigError, InvalidRequest

BAD_TTLS = [0, -1, 0.05, math.nan, math.inf, -math.inf, 1e12, "5", None, True, timedelta(milliseconds=1)]
BAD_TIMEOUTS = [-1, math.nan, math.inf, 1e12, "5", True]
BAD_NAMES: list[Any] = ["", "x" * 1025, "\ud800", b"x", None, 7]


@pytest.fixture(params=[lockring.Client, lockring.aio.Client], ids=["blocking", "asyncio"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("ttl", [each for each in BAD_TTLS if each is not None])
def test_impossible_leases_are_refused(kind: Any, ttl: Any) -> None:
    with pytest.raises(InvalidRequest, match="ttl"):
        kind("127.0.0.1:1", ttl=ttl)
    with pytest.raises(InvalidRequest, match="ttl"):
        kind("127.0.0.1:1").lock("x", ttl=ttl)


def test_leases_may_be_timedeltas(kind: Any) -> None:
    client = kind("127.0.0.1:1", ttl=timedelta(seconds=3))
    assert client.lock("x").ttl == 3.0
    assert client.lock("x", ttl=timedelta(minutes=1)).ttl == 60.0


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_impossible_names_are_refused(kind: Any, name: Any) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        kind("127.0.0.1:1").lock(name)


@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
def test_impossible_timeouts_are_refused_before_any_io(timeout: Any) -> None:
    client = lockring.Client("127.0.0.1:1")
    lock = client.lock("x")
    for call in (
        lambda: lock.acquire(timeout=timeout),
        lambda: lock.try_acquire(timeout=timeout),
        lambda: client.acquire_all(["x"], timeout=timeout),
        lambda: client.describe("x", timeout=timeout),
        lambda: client.locks(timeout=timeout),
        lambda: client.state(timeout=timeout),
    ):
        with pytest.raises(InvalidRequest, match="timeout"):
            call()


@pytest.mark.parametrize("token", [0, -1, 1.5, "7", True, 2**60])
def test_impossible_tokens_are_refused(token: Any) -> None:
    with pytest.raises(InvalidRequest, match="token"):
        lockring.Client("127.0.0.1:1").break_lock("x", token)


@pytest.mark.parametrize("names", [[], ["x", "x"], "x", ["x", ""]])
def test_impossible_sets_of_names_are_refused(names: Any) -> None:
    with pytest.raises(InvalidRequest):
        lockring.Client("127.0.0.1:1").acquire_all(names)


def test_other_impossible_arguments_are_refused() -> None:
    client = lockring.Client("127.0.0.1:1")
    with pytest.raises(InvalidRequest, match="owner"):
        lockring.Client("127.0.0.1:1", owner="x" * 300)
    with pytest.raises(InvalidRequest, match="node id"):
        client.drain("no such id!")
    with pytest.raises(InvalidRequest):
        client.watch("")
    with pytest.raises(InvalidRequest):
        client.locks("x" * 2000)


@pytest.mark.parametrize(
    "servers", ["", " , ", "localhost", "host:port", "host:99999", "host:0", [], ["a:1", 7], [""], 7]
)
def test_impossible_servers_are_refused(kind: Any, servers: Any) -> None:
    with pytest.raises(InvalidRequest):
        kind(servers)


def test_an_error_names_the_wrong_argument(kind: Any) -> None:
    with pytest.raises(InvalidRequest, match="connect_timeout must be"):
        kind("127.0.0.1:1", connect_timeout=-1)


def test_servers_are_a_string_with_commas_or_a_list() -> None:
    assert server_addresses("h1:1, h2:2") == ["h1:1", "h2:2"]
    assert server_addresses(["h1:1", "h2:2,h3:3", "h1:1"]) == ["h1:1", "h2:2", "h3:3"]
    assert server_addresses("[::1]:5") == ["[::1]:5"]
    assert server_addresses("lockrings://[fe80::1%25eth0]:5") == ["[fe80::1%eth0]:5"]


def test_without_servers_the_environment_and_then_the_default_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCKRING_SERVER", raising=False)
    assert server_addresses(None) == ["127.0.0.1:9501"]
    monkeypatch.setenv("LOCKRING_SERVER", "h1:1,h2:2")
    assert server_addresses(None) == ["h1:1", "h2:2"]
    for wrong in ("nonsense", "a..b:1", f"lockrings://{'a' * 64}:1", "ä..b:1"):
        monkeypatch.setenv("LOCKRING_SERVER", wrong)
        with pytest.raises(ConfigError, match="LOCKRING_SERVER"):
            server_addresses(None)


def test_the_default_owner_names_user_host_and_process(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind("h:1").owner == default_owner()
    assert default_owner().endswith(f":{os.getpid()}")
    assert kind("h:1", owner="me").owner == "me"
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    assert default_owner().startswith(f"{os.getuid()}@")


def test_making_clients_and_locks_does_no_io(kind: Any) -> None:
    client = kind("192.0.2.1:9", owner="me")
    lock = client.lock("x", ttl=5)
    assert repr(lock) == "<Lock 'x', ttl 5 s>"
    assert repr(client) == "<Client 192.0.2.1:9 owner 'me'>"
    assert lock.name == "x"
