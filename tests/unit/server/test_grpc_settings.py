"""The address of a node's gRPC server: as configured, or 100 above its lock port."""

from __future__ import annotations

from typing import Any

import pytest

from lockring.errors import CannotListen, ConfigError
from lockring.server.local.children import command_of
from lockring.server.settings import NodeSettings, ServeSettings, UpSettings


def addresses(listening: str = "127.0.0.1:9501", advertised: str = "127.0.0.1:9501", **settings: Any):
    return NodeSettings(id="n1", **settings).grpc_addresses(listening, advertised)


def test_the_default_grpc_port_is_100_above_the_lock_port_on_the_same_host() -> None:
    assert addresses() == ("127.0.0.1:9601", "")
    assert addresses("[::1]:20000", "[::1]:20000") == ("[::1]:20100", "")


def test_a_lock_port_too_high_for_a_grpc_port_beside_it_is_refused() -> None:
    with pytest.raises(CannotListen, match="there is no port 65600"):
        NodeSettings(id="n").grpc_addresses("127.0.0.1:65500", "127.0.0.1:65500")
    settings = NodeSettings(id="n", grpc_listen="127.0.0.1:1")
    assert settings.grpc_addresses("127.0.0.1:65500", "127.0.0.1:65500") == ("127.0.0.1:1", "")


def test_the_advertised_host_is_announced_to_other_nodes() -> None:
    found = addresses("0.0.0.0:9501", "n1.example:80", listen="0.0.0.0:9501", advertise="n1.example:80")
    assert found == ("0.0.0.0:9601", "n1.example:9601")


def test_an_explicit_address_is_used_unchanged() -> None:
    found = addresses(grpc_listen="0.0.0.0:7000", grpc_advertise="n1.example:7001")
    assert found == ("0.0.0.0:7000", "n1.example:7001")


@pytest.mark.parametrize("kind", [NodeSettings, ServeSettings])
@pytest.mark.parametrize(
    "settings",
    [
        {"grpc_listen": "0.0.0.0:7000"},
        {"grpc_advertise": "0.0.0.0:7000"},
        {"grpc": False, "grpc_listen": "127.0.0.1:7000"},
    ],
)
def test_contradicting_settings_are_refused(kind: type, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        kind(id="n1", **settings)


def test_a_cluster_whose_grpc_ports_have_no_room_is_refused() -> None:
    with pytest.raises(ConfigError):
        UpSettings(port=65_500)
    UpSettings(port=65_500, grpc=False)


def test_a_child_can_be_started_without_grpc() -> None:
    assert "--no-grpc" in command_of("node", NodeSettings(id="n1", grpc=False))
    assert "--no-grpc" not in command_of("node", NodeSettings(id="n1"))


def test_serve_passes_its_grpc_settings_to_its_node() -> None:
    settings = ServeSettings(grpc_listen="127.0.0.1:7000").node("127.0.0.1:9500", None)
    assert (settings.grpc, settings.grpc_listen) == (True, "127.0.0.1:7000")
