"""The settings of TLS: shared tables of the file, complete sides, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.cli.sections import read_file, sections
from lockring.config import load
from lockring.errors import ConfigError
from lockring.server.local.children import command_of
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

PEERS = {"peer_tls_cert": "n.pem", "peer_tls_key": "n-key.pem", "peer_tls_ca": "peer-ca.pem"}
BOTH = {"tls_cert": "s.pem", "tls_key": "s-key.pem", **PEERS}

FILE = """
[tls]
cert = "s.pem"
key = "s-key.pem"
ca = "ca.pem"
client_auth = "optional"

[peer_tls]
cert = "n.pem"
key = "n-key.pem"
ca = "peer-ca.pem"
"""


@pytest.mark.parametrize("section", ["node", "coordinator", "serve", "up"])
def test_all_servers_read_the_shared_tables(tmp_path: Path, section: str) -> None:
    path = tmp_path / "lockring.toml"
    path.write_text(FILE + ("[node]\nid = 'n1'\n" if section == "node" else ""))
    settings = load(sections()[section], section, flags={}, environ={}, file=read_file(str(path)))
    assert settings.tls_fields() == {**BOTH, "tls_ca": "ca.pem", "tls_client_auth": "optional"}
    overridden = load(
        sections()[section],
        section,
        flags={"tls_cert": "flag.pem", "id": "n1"} if section == "node" else {"tls_cert": "flag.pem"},
        environ={"LOCKRING_PEER_TLS_CERT": "variable.pem"},
        file=read_file(str(path)),
    )
    assert (overridden.tls_cert, overridden.peer_tls_cert) == ("flag.pem", "variable.pem")


def test_a_mistake_in_a_shared_table_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lockring.toml"
    path.write_text(FILE.replace('"optional"', '"sometimes"'))
    with pytest.raises(
        ConfigError, match=r"line 6: \[tls\] client_auth: expected one of none, optional, required"
    ):
        load(ServeSettings, "serve", flags={}, environ={}, file=read_file(str(path)))
    path.write_text(FILE.replace("ca = ", "authority = "))
    with pytest.raises(
        ConfigError,
        match=r"line 5: unknown key 'authority' in \[tls\]; \[tls\] has cert, key, ca, client_auth",
    ):
        read_file(str(path))
    path.write_text("[serve]\ntls_cert = 's.pem'\n")
    with pytest.raises(ConfigError, match=r"unknown key 'tls_cert' in \[serve\]"):
        read_file(str(path))


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        ({"tls_cert": "s.pem", "tls_key": "k.pem"}, "--peer-tls-cert, --peer-tls-key and --peer-tls-ca"),
        (PEERS, "--tls-cert and --tls-key"),
        ({"tls_ca": "ca.pem"}, "--tls-cert, --tls-key, --peer-tls-cert, --peer-tls-key and --peer-tls-ca"),
        ({**BOTH, "tls_client_auth": "required"}, "--tls-ca"),
        ({**BOTH, "tls_key": ""}, "--tls-key"),
    ],
)
def test_each_server_needs_both_sides(given: dict[str, str], needed: str) -> None:
    for make in (
        lambda: NodeSettings(id="n1", **given),
        lambda: CoordinatorSettings(**given),
        lambda: ServeSettings(**given),
        lambda: UpSettings(**given),
    ):
        with pytest.raises(ConfigError, match=f"needs {needed} too"):
            make()


def test_clients_need_certificates_where_their_authorities_are_named() -> None:
    assert CoordinatorSettings().client_auth == "none"
    assert not CoordinatorSettings().has_tls
    assert CoordinatorSettings(**BOTH).client_auth == "none"
    assert CoordinatorSettings(**BOTH, tls_ca="ca.pem").client_auth == "required"
    assert CoordinatorSettings(**BOTH, tls_ca="ca.pem", tls_client_auth="optional").client_auth == "optional"


def test_serve_gives_both_of_its_servers_the_same() -> None:
    settings = ServeSettings(**BOTH)
    assert settings.coordinator(None, new_cluster=True).tls_fields() == settings.tls_fields()
    assert settings.node("127.0.0.1:1", None).tls_fields() == settings.tls_fields()
    assert "--peer-tls-ca" in command_of("coordinator", settings.coordinator(None, new_cluster=True))


def test_up_makes_certificates_or_is_given_some() -> None:
    with pytest.raises(ConfigError, match="--tls contradicts --tls-cert"):
        UpSettings(tls=True, **BOTH)
