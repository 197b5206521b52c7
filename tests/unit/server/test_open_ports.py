"""A server that other machines could reach starts only with TLS and identities, or on purpose."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from lockring import exits
from lockring.cli.app import main
from lockring.cli.sections import read_file
from lockring.config import load
from lockring.errors import CannotListen, ConfigError
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.local.children import command_of
from lockring.server.open_ports import OpenPort, ServerSettings, checked_access, is_loopback, ports_of
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

TLS = {
    "tls_cert": "s.pem",
    "tls_key": "s-key.pem",
    "peer_tls_cert": "n.pem",
    "peer_tls_key": "n-key.pem",
    "peer_tls_ca": "peer-ca.pem",
}
ENFORCING = AccessSettings(auth="enforcing", acl_file="acl.toml")
PERMISSIVE = AccessSettings(auth="permissive", acl_file="acl.toml")
INSECURE = AccessSettings(insecure=True)
EVERYWHERE = {"listen": "0.0.0.0:9501", "advertise": "n1.example:9501"}


def node(**more: Any) -> NodeSettings:
    return NodeSettings(**{"id": "n1", "grpc": False, **EVERYWHERE, **more})


# ----------------------------------------------------------------------- which addresses are loopback


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.8.7", "127.1", "0x7f000001", "::1", "::ffff:127.0.0.1", "localhost"],
)
def test_an_address_of_the_loopback_interface_is_seen_however_it_is_written(host: str) -> None:
    assert is_loopback(OpenPort("--listen", f"{host}:1", host))


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "0",
        "::",
        "10.99.0.1",
        "169.254.1.1",
        "::ffff:10.0.0.1",
        "::ffff:0.0.0.0",
        "2001:db8::1",
        "128.0.0.1",
    ],
)
def test_any_other_address_is_one_that_other_machines_reach(host: str) -> None:
    assert not is_loopback(OpenPort("--listen", f"{host}:1", host))


@pytest.mark.parametrize(
    ("found", "expected"),
    [(["127.0.0.1", "::1"], True), (["127.0.0.1", "10.0.0.1"], False), (["fe80::1%lo"], False)],
)
def test_a_name_is_loopback_if_all_of_its_addresses_are(
    monkeypatch: pytest.MonkeyPatch, found: list[str], expected: bool
) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, 0)) for address in found]
    )
    assert is_loopback(OpenPort("--listen", "db:1", "db")) is expected


@pytest.mark.parametrize("host", ["no-such-host.invalid", "unix", "a" * 70, "x..y"])
def test_a_name_without_an_address_is_no_place_to_listen(host: str) -> None:
    with pytest.raises(CannotListen, match=f"cannot listen on {host}:7: ") as caught:
        is_loopback(OpenPort("--grpc-listen", f"{host}:7", host))
    assert exits.exit_code_of(caught.value) == exits.UNAVAILABLE


# ----------------------------------------------------------------------- which servers are refused


@pytest.mark.parametrize(
    ("more", "access", "danger", "way_out"),
    [
        ({}, OPEN, "any process may do everything there, and even join as a node", "--tls-cert"),
        ({}, PERMISSIVE, "any process may do everything there, and even join as a node", "--tls-ca"),
        ({}, ENFORCING, "any process may join as a node there, and read tokens on their way", "--tls-cert"),
        (TLS, OPEN, "any client may do everything there", "--tls-ca"),
        (TLS, PERMISSIVE, "any client may do everything there", "--auth enforcing"),
        (
            TLS | {"tls_ca": "ca.pem", "tls_client_auth": "optional"},
            OPEN,
            "any client may",
            "--auth enforcing",
        ),
        (TLS | {"tls_ca": "ca.pem", "tls_client_auth": "none"}, OPEN, "any client may", "--auth enforcing"),
    ],
)
def test_a_server_that_is_open_is_refused_with_the_danger_and_the_ways_out(
    more: dict[str, Any], access: AccessSettings, danger: str, way_out: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_access(node(**more), access)
    text = str(caught.value)
    assert text.startswith(f"--listen 0.0.0.0:9501 can be reached from other machines, and {danger}")
    assert way_out in text.partition(danger)[2]
    assert text.endswith("; or listen on 127.0.0.1; or add --insecure, in a network that you trust")


@pytest.mark.parametrize(
    ("more", "access"),
    [
        (TLS | {"tls_ca": "ca.pem"}, OPEN),
        (TLS | {"tls_ca": "ca.pem"}, PERMISSIVE),
        (TLS | {"tls_ca": "ca.pem", "tls_client_auth": "optional"}, ENFORCING),
        (TLS, ENFORCING),
    ],
)
def test_a_server_with_tls_whose_clients_prove_what_they_are_starts(
    more: dict[str, Any], access: AccessSettings
) -> None:
    assert checked_access(node(**more), access) == access


def test_a_server_on_the_loopback_interface_needs_nothing_and_is_not_open() -> None:
    local = NodeSettings(id="n1", listen="127.0.0.1:9501")
    assert checked_access(local, OPEN) == OPEN
    assert checked_access(local, INSECURE) == OPEN, "it is not told as open where it is not"


def test_a_server_that_is_told_to_is_open_and_known_as_such() -> None:
    assert checked_access(node(), INSECURE).insecure
    assert not checked_access(node(**TLS, tls_ca="ca.pem"), INSECURE).insecure


def named(settings: ServerSettings) -> list[str]:
    return [f"{each.flag} {each.value}" for each in ports_of(settings)]


def test_all_ports_of_a_process_are_named_at_once() -> None:
    serve = ServeSettings(
        listen="[::]:9501", advertise="a:1", coordinator_listen="10.0.0.1:9500", in_memory=True
    )
    with pytest.raises(ConfigError) as caught:
        checked_access(serve, OPEN)
    ports = "--listen [::]:9501 and --coordinator-listen 10.0.0.1:9500 and --grpc-listen [::]:9601"
    assert str(caught.value).startswith(f"{ports} can be reached")


def test_a_grpc_port_alone_is_enough() -> None:
    settings = node(listen="127.0.0.1:9501", advertise="", grpc=True, grpc_listen="10.0.0.1:9601")
    with pytest.raises(ConfigError, match=r"^--grpc-listen 10.0.0.1:9601 can be reached"):
        checked_access(settings, OPEN)
    assert named(node(grpc=True)) == ["--listen 0.0.0.0:9501", "--grpc-listen 0.0.0.0:9601"]
    assert named(node()) == ["--listen 0.0.0.0:9501"]
    # Too high for a port of gRPC beside it, which the node then does without, or a free one.
    assert named(node(grpc=True, listen="0.0.0.0:65500"))[1] == "--grpc-listen 0.0.0.0:0"
    assert named(node(grpc=True, listen="0.0.0.0:0"))[1] == "--grpc-listen 0.0.0.0:0"


def test_a_whole_cluster_on_one_machine_is_asked_for_its_host() -> None:
    up = UpSettings(host="10.0.0.1")
    with pytest.raises(ConfigError) as caught:
        checked_access(up, OPEN)
    assert str(caught.value) == (
        "--host 10.0.0.1 can be reached from other machines, and any process may do everything there, and even join as a"
        " node: add --tls, which makes certificates for development; or listen on --host 127.0.0.1; or add --insecure, in"
        " a network that you trust"
    )
    assert checked_access(UpSettings(host="10.0.0.1", tls=True), OPEN) == OPEN
    assert checked_access(UpSettings(), OPEN) == OPEN


def test_the_processes_of_a_cluster_on_one_machine_get_the_flag_as_they_need_it() -> None:
    command = command_of("node", node(), checked_access(node(), INSECURE))
    assert "--insecure" in command
    local = NodeSettings(id="n1")
    assert "--insecure" not in command_of("node", local, checked_access(local, INSECURE))


def test_a_coordinator_has_one_port() -> None:
    with pytest.raises(ConfigError, match=r"^--listen 10.0.0.1:9500 can be reached"):
        checked_access(CoordinatorSettings(listen="10.0.0.1:9500"), OPEN)


# ----------------------------------------------------------------------- the commands


@pytest.mark.parametrize(
    "arguments",
    [
        ["coordinator", "--listen", "10.0.0.1:9500"],
        ["node", "--id", "n1", "--listen", "10.0.0.1:9501"],
        ["serve", "--listen", "10.0.0.1:9501"],
        ["up", "--host", "10.0.0.1"],
    ],
)
def test_a_command_that_would_be_open_ends_with_64_and_makes_no_directory(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    monkeypatch.delenv("LOCKRING_BUILD", raising=False)  # of the tests alone, and commands do not know it
    assert main([*arguments, "--data-dir", str(tmp_path / "data")]) == exits.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("lockring: --")
    assert err.count("\n") == 1
    assert "or add --insecure" in err
    assert list(tmp_path.iterdir()) == []


def test_the_flag_the_variable_and_the_file_open_a_server(tmp_path: Path) -> None:
    path = tmp_path / "lockring.toml"
    path.write_text("[access]\ninsecure = true\n")
    none: dict[str, Any] = {"flags": {}, "environ": {}}
    for given in (
        none | {"flags": {"insecure": True}},
        none | {"environ": {"LOCKRING_INSECURE": "1"}},
        none | {"file": read_file(str(path))},
    ):
        assert load(AccessSettings, "access", **given).insecure
    assert not load(AccessSettings, "access", **none).insecure
