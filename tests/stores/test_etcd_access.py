"""The store in etcd with users, passwords and TLS."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate
from lockring.errors import StoreError
from lockring.store.etcd.etcd_pb2 import AuthenticateRequest, AuthenticateResponse
from lockring.store.etcd.store import EtcdStore
from tests.stores.servers import HOST
from tests.stores.servers_etcd import EtcdServer, EtcdTls

ONE = Candidate("term-1", "one:9500")
PASSWORD: Final = "s3cret/+ and more"
QUOTED: Final = "s3cret%2F%2B%20and%20more"


def state(version: int) -> ClusterState:
    return ClusterState(cluster="c", version=version, term=ONE.term)


def check_use(store: EtcdStore, version: int = 1) -> None:
    assert store.campaign(ONE, 60_000).leader == ONE
    assert store.write(version - 1, state(version))
    assert store.read() == state(version)
    store.resign("another")


# ---------------------------------------------------------------------------- users


def administer(server: EtcdServer, call: str, request: bytes, token: str = "") -> bytes:
    """Make a call of etcd's administration, whose messages lockring has no need of, by their numbers."""
    with grpc.insecure_channel(
        f"{HOST}:{server.ports[0]}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/etcdserverpb.Auth/{call}")
        metadata = (("token", token),) if token else None
        return method(request, timeout=30, metadata=metadata)


def text(number: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(data)]) + data


def number(number: int, value: int) -> bytes:
    return bytes([number << 3, value])


def admit_users(server: EtcdServer) -> None:
    """Let in known users only: root, and ring, who may use the keys below ring/."""
    administer(server, "UserAdd", text(1, "root") + text(2, "root's"))
    administer(server, "RoleAdd", text(1, "root"))
    administer(server, "UserGrantRole", text(1, "root") + text(2, "root"))
    administer(server, "UserAdd", text(1, "ring") + text(2, PASSWORD))
    administer(server, "RoleAdd", text(1, "ring"))
    permission = number(1, 2) + text(2, "ring/") + text(3, "ring0")
    administer(server, "RoleGrantPermission", text(1, "ring") + text(2, permission))
    administer(server, "UserGrantRole", text(1, "ring") + text(2, "ring"))
    administer(server, "AuthEnable", b"")


def root_token(server: EtcdServer) -> str:
    request = AuthenticateRequest(name="root", password="root's").SerializeToString()
    return AuthenticateResponse.FromString(administer(server, "Authenticate", request)).token


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    """A cluster that lets in known users only."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"))
    admit_users(server)
    yield server
    server.kill()


def test_a_user_with_a_password_may_use_the_prefix_that_is_granted(guarded: EtcdServer) -> None:
    store = EtcdStore(guarded.url("ring/a", user=f"ring:{QUOTED}"))
    check_use(store)
    store.close()


def test_a_token_that_etcd_forgot_is_renewed_without_an_error(guarded: EtcdServer) -> None:
    store = EtcdStore(guarded.url("ring/b", user=f"ring:{QUOTED}"))
    check_use(store)
    token = store._calls._token
    store._calls._token = "forgotten.1"
    assert store.write(1, state(2))
    assert store._calls._token not in ("", "forgotten.1", token)
    store._calls._token = "forgotten.2"
    assert store.campaign(ONE, 60_000).leader == ONE
    store._calls._token = "forgotten.3"
    assert store.read() == state(2)
    store.close()


@pytest.mark.slow
def test_a_restarted_member_knows_no_token_and_gets_a_new_one(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "etcd")
    try:
        admit_users(server)
        store = EtcdStore(server.url("ring/c", user=f"ring:{QUOTED}"))
        check_use(store)
        server.kill()
        server.start(0)
        server.wait()
        assert store.read() == state(1)
        assert store.write(1, state(2))
        assert store.campaign(ONE, 60_000).leader == ONE
        store.close()
    finally:
        server.kill()


@pytest.mark.slow
def test_users_may_be_introduced_while_a_coordinator_works(tmp_path: Path) -> None:
    server = EtcdServer(tmp_path / "etcd")
    try:
        store = EtcdStore(server.url("ring/d", user=f"ring:{QUOTED}"))
        check_use(store)
        admit_users(server)
        assert store.read() == state(1)
        assert store.write(1, state(2))
        assert store.campaign(ONE, 60_000).leader == ONE
        administer(server, "AuthDisable", b"", root_token(server))
        assert store.write(2, state(3))
        store.close()
    finally:
        server.kill()


def test_a_changed_role_does_not_end_a_token(guarded: EtcdServer) -> None:
    store = EtcdStore(guarded.url("ring/e", user=f"ring:{QUOTED}"))
    check_use(store)
    administer(guarded, "RoleAdd", text(1, "another"), root_token(guarded))
    assert store.write(1, state(2))
    assert store.campaign(ONE, 60_000).leader == ONE
    store.close()


def test_a_wrong_password_is_refused_and_not_shown(guarded: EtcdServer) -> None:
    with pytest.raises(StoreError, match="refuses the user ring with this password") as refused:
        EtcdStore(guarded.url("ring/a", user="ring:wr0ng"))
    assert "wr0ng" not in str(refused.value)
    assert "wr0ng" not in repr(refused.value.__cause__)
    assert f"etcd://ring@{HOST}:{guarded.ports[0]}/ring/a" in str(refused.value)


def test_a_store_without_a_user_is_told_to_name_one(guarded: EtcdServer) -> None:
    with pytest.raises(StoreError, match="lets no client in without a user"):
        EtcdStore(guarded.url("ring/a"))


def test_a_prefix_that_is_not_granted_is_refused_with_the_command_that_grants_it(guarded: EtcdServer) -> None:
    with pytest.raises(StoreError, match=r"denies the user ring the keys below other/.*readwrite other/"):
        EtcdStore(guarded.url("other", user=f"ring:{QUOTED}"))


def test_a_password_that_changes_in_its_file_is_used(guarded: EtcdServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wr0ng")
    url = guarded.url("ring/f", user="ring", more=f"?password_file={file}")
    with pytest.raises(StoreError, match="refuses the user"):
        EtcdStore(url)
    file.write_text(f"{PASSWORD}\n")
    store = EtcdStore(url)
    check_use(store)
    file.unlink()
    store._calls._token = ""
    with pytest.raises(StoreError, match="cannot be read from"):
        store.read()
    store.close()


# ---------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> EtcdTls:
    return EtcdTls(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, tls: EtcdTls) -> Iterator[EtcdServer]:
    """A cluster that speaks TLS, and asks for clients' certificates."""
    server = EtcdServer(tmp_path_factory.mktemp("etcd"), tls=tls, asks_for_certificates=True)
    yield server
    server.kill()


def test_tls_with_a_certificate_of_the_coordinators_own(
    encrypted: EtcdServer, tls: EtcdTls, name: str
) -> None:
    cert, key = tls.issue("client")
    store = EtcdStore(encrypted.url(name, more=f"?ca={tls.ca}&cert={cert}&key={key}"))
    check_use(store)
    store.close()


def test_a_certificate_of_another_authority_is_refused(
    encrypted: EtcdServer, tls: EtcdTls, name: str, tmp_path: Path
) -> None:
    others = EtcdTls(tmp_path / "others")
    cert, key = tls.issue("client")
    with pytest.raises(StoreError, match=rf"is of an authority that is not one of those in {others.ca}"):
        EtcdStore(encrypted.url(name, more=f"?ca={others.ca}&cert={cert}&key={key}"))
    with pytest.raises(
        StoreError, match="not one of the well-known ones; name others with ca=FILE in the URL"
    ):
        EtcdStore(encrypted.url(name, more=f"?cert={cert}&key={key}"))
    with pytest.raises(StoreError, match=rf"most likely does not take the certificate {others.cert}"):
        EtcdStore(encrypted.url(name, more=f"?ca={tls.ca}&cert={others.cert}&key={others.key}"))
    with pytest.raises(
        StoreError, match=r"most likely asks for a certificate .* cert=FILE&key=FILE in the URL"
    ):
        EtcdStore(encrypted.url(name, more=f"?ca={tls.ca}"))


def test_a_member_under_another_name_than_its_certificates_is_refused(
    encrypted: EtcdServer, tls: EtcdTls
) -> None:
    cert, key = tls.issue("client")
    url = f"etcds://localhost:{encrypted.ports[0]}/x?ca={tls.ca}&cert={cert}&key={key}"
    with pytest.raises(StoreError, match=r"(?i)cannot be opened: .*(hostname|peer name)"):
        EtcdStore(url)


def test_a_connection_in_the_clear_to_a_member_with_tls_is_refused(encrypted: EtcdServer, name: str) -> None:
    with pytest.raises(StoreError, match="if it expects TLS, write etcds://"):
        EtcdStore(f"etcd://{HOST}:{encrypted.ports[0]}/{name}")


def test_tls_to_a_member_that_does_not_speak_it_is_refused(etcd: EtcdServer, tls: EtcdTls, name: str) -> None:
    with pytest.raises(StoreError, match="it may not speak TLS: then write etcd://"):
        EtcdStore(f"etcds://{HOST}:{etcd.ports[0]}/{name}?ca={tls.ca}")


def test_certificates_that_are_replaced_are_used_and_halves_of_a_pair_are_not(
    encrypted: EtcdServer, tls: EtcdTls, name: str, tmp_path: Path
) -> None:
    own_cert, own_key = tmp_path / "own.crt", tmp_path / "own.key"
    first, second = tls.issue("first"), tls.issue("second")
    replace(first[0], own_cert)
    replace(first[1], own_key)
    store = EtcdStore(encrypted.url(name, more=f"?ca={tls.ca}&cert={own_cert}&key={own_key}"))
    check_use(store)
    (channel,) = store._calls._channels.values()
    assert store.read() == state(1)
    assert list(store._calls._channels.values()) == [channel]
    replace(second[0], own_cert)
    assert store.read() == state(1)
    assert list(store._calls._channels.values()) == [channel], "the key of that certificate is not there yet"
    replace(second[1], own_key)
    assert store.read() == state(1)
    assert channel not in store._calls._channels.values()
    store.close()


def replace(source: Path, target: Path) -> None:
    scratch = target.with_suffix(".new")
    shutil.copy(source, scratch)
    os.replace(scratch, target)


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_text("garbage"), lambda path: path.unlink()],
    ids=["garbage", "missing"],
)
def test_files_that_cannot_be_used_are_named(tls: EtcdTls, tmp_path: Path, damage: Any) -> None:
    ca = tmp_path / "ca.crt"
    shutil.copy(tls.ca, ca)
    damage(ca)
    with pytest.raises(
        StoreError, match=rf"files for TLS .*{ca}.* cannot be used: (one of them|no such file)"
    ):
        EtcdStore(f"etcds://{HOST}:1/x?ca={ca}")


def test_a_key_of_another_certificate_is_named(tls: EtcdTls) -> None:
    (cert, _), (_, key) = tls.issue("one"), tls.issue("another")
    with pytest.raises(StoreError, match=f"the key {key} is not that of the certificate {cert}"):
        EtcdStore(f"etcds://{HOST}:1/x?ca={tls.ca}&cert={cert}&key={key}")
