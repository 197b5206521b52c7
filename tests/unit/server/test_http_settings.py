"""The settings of HTTP: its address, the path of a proxy, and names."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.config import load
from lockring.errors import CannotListen, ConfigError
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings


def test_the_default_port_is_200_above_on_loopback_whatever_the_host_of_the_lock_port() -> None:
    assert CoordinatorSettings().http_address("127.0.0.1:9500") == "127.0.0.1:9700"
    settings = NodeSettings(id="n", listen="0.0.0.0:9501", advertise="n:9501")
    assert settings.http_address("0.0.0.0:9501") == "127.0.0.1:9701"
    assert NodeSettings(id="n", http_listen="[::1]:80").http_address("127.0.0.1:9501") == "[::1]:80"


def test_a_port_too_high_for_one_beside_it_is_named() -> None:
    with pytest.raises(CannotListen, match="there is no port 65700 for HTTP"):
        CoordinatorSettings().http_address("127.0.0.1:65500")


@pytest.mark.parametrize("kind", [NodeSettings, ServeSettings])
def test_no_http_contradicts_an_address_for_it(kind: type) -> None:
    with pytest.raises(ConfigError, match="--no-http contradicts"):
        kind(id="n", http=False, http_listen="127.0.0.1:1")


@pytest.mark.parametrize(
    ("kind", "other", "named"),
    [
        (CoordinatorSettings, "127.0.0.1:9500", "--listen"),
        (NodeSettings, "127.0.0.1:9501", "--listen"),
        (NodeSettings, "127.0.0.1:9601", "the gRPC port"),
        (ServeSettings, "127.0.0.1:9500", "--coordinator-listen"),
    ],
)
def test_an_address_for_http_that_another_port_of_the_process_has_is_named(
    kind: type, other: str, named: str
) -> None:
    more = {} if kind is CoordinatorSettings else {"id": "n"}
    with pytest.raises(ConfigError, match=rf"{other} is both .*{named}.*: give each a port of its own"):
        kind(http_listen=other, **more)


def test_serve_has_one_port_for_both_and_its_parts_have_none() -> None:
    settings = ServeSettings(http_listen="127.0.0.1:7000")
    assert settings.http
    assert not settings.node("127.0.0.1:9500", None).http
    assert not settings.coordinator(None, new_cluster=True).http


def test_a_cluster_that_listens_elsewhere_has_its_http_there_too() -> None:
    assert UpSettings().http_listen_of("127.0.0.1:9501") == ""
    assert UpSettings(host="10.0.0.1").http_listen_of("10.0.0.1:9501") == "10.0.0.1:9701"
    assert UpSettings(host="10.0.0.1", port=0).http_listen_of("10.0.0.1:9501") == "10.0.0.1:0"
    assert UpSettings(host="10.0.0.1", http=False).http_listen_of("10.0.0.1:9501") == ""


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"host": "10.0.0.1"}, 65_332),
        ({"host": "10.0.0.1", "http": False}, 65_432),
        ({}, 65_432),
        ({"http": False, "grpc": False}, 65_532),
    ],
)
def test_all_ports_of_a_cluster_exist(settings: dict[str, Any], last: int) -> None:
    UpSettings(port=last, **settings)
    with pytest.raises(ConfigError, match="leaves no room"):
        UpSettings(port=last + 1, **settings)


@pytest.mark.parametrize("given", ["lockring", "/lockring/", "/", "//a", "/a/../b", "/a b", "/ä", "/a?b"])
def test_a_prefix_that_is_no_path_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="expected a path such as /lockring"):
        load(CoordinatorSettings, "coordinator", flags={"http_prefix": given}, environ={})


@pytest.mark.parametrize("given", ["locks.example:80", "http://locks.example", "*", "a,,b"])
def test_a_name_that_is_no_host_is_refused(given: str) -> None:
    with pytest.raises(ConfigError):
        load(CoordinatorSettings, "coordinator", flags={"http_hosts": given}, environ={})
