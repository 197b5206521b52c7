"""Files of TLS: what fits is used, what does not leaves the former in use, and every error says what to do."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from lockring.clock import wall_ns
from lockring.errors import ConfigError
from lockring.security.certs import CertMaker
from lockring.security.tls_contexts import client_context, peer_context, port_context
from lockring.security.tls_files import TlsContent, TlsPaths, changed_since, read_files
from lockring.security.tls_policy import LOOK_NS, WARN_S, ClientTls, TlsPolicy
from lockring.units import NS_PER_S
from tests.unit.security.conftest import Certs

DAY_S = 86_400


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The log's lines; grows while the test runs."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    caplog.set_level(logging.INFO, "lockring.tls")
    logger = logging.getLogger("lockring.tls")
    keeper = Keeper()
    logger.addHandler(keeper)
    yield found
    logger.removeHandler(keeper)


def in_use(policy: TlsPolicy) -> tuple[object, object]:
    contexts = policy.port_contexts
    return contexts.clients, contexts.servers


# ----------------------------------------------------------------------- contexts


def test_all_contexts_have_the_same_rules(certs: Certs) -> None:
    server, node, client = (
        certs.paths(certs.server),
        certs.paths(certs.node, "peer-ca"),
        certs.paths(certs.client),
    )
    made = [
        port_context(server, read_files(server), "required"),
        port_context(node, read_files(node), "required"),
        peer_context(node, read_files(node)),
        client_context(client, read_files(client)),
    ]
    for context in made:
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.verify_mode == ssl.CERT_REQUIRED
    assert [context.check_hostname for context in made] == [False, False, False, True]


def test_without_a_ca_a_client_trusts_the_authorities_of_the_system(certs: Certs) -> None:
    assert client_context(TlsPaths(), TlsContent(b"", b"", b"")).verify_mode == ssl.CERT_REQUIRED
    assert ClientTls().context.check_hostname


# ----------------------------------------------------------------------- files that are wrong from the start


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (TlsPaths("c", "", ""), "--tls-cert needs --tls-key and --tls-ca"),
        (TlsPaths("", "k", "a"), "--tls-key and --tls-ca needs --tls-cert"),
        (TlsPaths("", "", ""), "TLS needs --tls-cert and --tls-key and --tls-ca"),
    ],
)
def test_a_missing_setting_is_named(paths: TlsPaths, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TlsPolicy(paths, None, client_auth="required")
    assert str(caught.value) == said


def test_a_port_that_asks_for_no_certificate_needs_no_authority(certs: Certs) -> None:
    policy = TlsPolicy(certs.paths(certs.server, ca=""), None, client_auth="none")
    assert policy.port_contexts.clients is not None
    assert policy.port_contexts.servers is None
    assert policy.dial_context is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda paths: Path(paths.cert).unlink(), "server.pem cannot be read: no such file or directory"),
        (lambda paths: Path(paths.key).write_text(""), "server-key.pem is empty"),
        (lambda paths: Path(paths.key).write_text("nonsense"), "do not fit together"),
        (
            lambda paths: Path(paths.cert).write_text("nonsense"),
            "server.pem: it has no certificate in PEM form",
        ),
        (
            lambda paths: Path(paths.ca).write_text("nonsense"),
            "has no certificate of an authority in PEM form",
        ),
        (lambda paths: Path(paths.ca).write_bytes(b"x" * (5 << 20)), "ca.pem is longer than 4 MiB"),
    ],
)
def test_a_wrong_file_is_named(fresh: Certs, damage, said: str) -> None:
    paths = fresh.paths(fresh.server)
    damage(paths)
    with pytest.raises(ConfigError) as caught:
        TlsPolicy(paths, None, client_auth="required")
    assert said in str(caught.value)


def test_a_key_of_another_certificate_is_refused(fresh: Certs) -> None:
    paths = TlsPaths(str(fresh.server.cert), str(fresh.client.key), str(fresh.directory / "ca.pem"))
    with pytest.raises(ConfigError, match="do not fit together: key values mismatch"):
        TlsPolicy(paths, None)


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(fresh: Certs) -> None:
    key = serialization.load_pem_private_key(fresh.server.key.read_bytes(), None)
    fresh.server.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="is encrypted"):
        TlsPolicy(fresh.paths(fresh.server), None)


def test_an_authority_for_both_clients_and_servers_is_refused(certs: Certs) -> None:
    with pytest.raises(ConfigError, match="each client could be a node"):
        TlsPolicy(certs.paths(certs.server), certs.paths(certs.server), client_auth="optional")


def test_a_client_with_half_of_a_pair_is_refused(certs: Certs) -> None:
    with pytest.raises(ConfigError, match="--cert needs --key"):
        ClientTls(TlsPaths(cert=str(certs.client.cert)))
    with pytest.raises(ConfigError, match="--key needs --cert"):
        ClientTls(TlsPaths(key=str(certs.client.key)))


def test_a_key_is_in_no_text(certs: Certs) -> None:
    content = read_files(certs.paths(certs.server))
    assert b"PRIVATE KEY" in content.key
    assert "PRIVATE" not in f"{content} {content!r}"


# ----------------------------------------------------------------------- files that change


def test_the_same_content_makes_no_new_contexts(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    before = in_use(policy)
    for path in fresh.directory.iterdir():
        path.touch()
        path.write_bytes(path.read_bytes())
    assert not policy.look()
    assert in_use(policy) == before
    assert lines == []


def test_a_new_pair_is_in_use_at_the_next_look_of_its_side_alone(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    clients, servers = in_use(policy)
    CertMaker(fresh.directory, replace=True).server(["localhost"])
    assert policy.look()
    assert in_use(policy)[0] is not clients
    assert in_use(policy)[1] is servers
    assert lines == ["new TLS files for clients are in use"]
    CertMaker(fresh.directory, replace=True).node("n1")
    dials = policy.dial_context
    assert policy.look()
    assert in_use(policy)[1] is not servers
    assert policy.dial_context is not dials


def test_files_are_looked_at_at_most_once_a_second(fresh: Certs, monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 10 * NS_PER_S
    monkeypatch.setattr("lockring.security.tls_policy.monotonic_ns", lambda: now_ns)
    policy, client = fresh.policy(), ClientTls(fresh.paths(fresh.client))
    before, dials = in_use(policy), client.context
    maker = CertMaker(fresh.directory, replace=True)
    maker.server(["localhost"])
    maker.client("web-1")
    now_ns += LOOK_NS - 1
    assert in_use(policy) == before
    assert client.context is dials
    now_ns += 1
    assert in_use(policy) != before
    assert client.context is not dials


def test_half_of_a_pair_leaves_the_former_in_use_with_one_line(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    before, edition = in_use(policy), policy.edition
    former = fresh.server.key.read_bytes()
    CertMaker(fresh.directory, replace=True).server(["localhost"])
    renewed = fresh.server.key.read_bytes()
    for half in (former, renewed[: len(renewed) // 2], b""):
        fresh.server.key.write_bytes(half)
        for _ in range(5):
            assert not policy.look()
    assert (in_use(policy), policy.edition) == (before, edition)
    assert policy.problem
    assert len(lines) == 1
    assert lines[0].startswith(
        "the TLS files for clients have changed and are not used yet, the earlier ones stay in use: "
    )
    fresh.server.key.write_bytes(renewed)
    assert policy.look()
    assert in_use(policy)[0] is not before[0]
    assert policy.edition != edition
    assert policy.problem == ""
    assert lines[1:] == ["new TLS files for clients are in use"]


def test_files_that_are_gone_leave_the_former_in_use(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    before = in_use(policy)
    (fresh.directory / "peer-ca.pem").unlink()
    assert not policy.look()
    assert in_use(policy) == before
    assert "peer-ca.pem cannot be read: no such file or directory" in lines[0]


def test_files_that_change_while_they_are_read_are_not_used(
    fresh: Certs, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    policy = fresh.policy()
    before = in_use(policy)
    load = ssl.SSLContext.load_cert_chain
    renewed = CertMaker(fresh.directory / "other")
    renewed.authorities()
    later = renewed.server(["localhost"])

    def load_and_change(self: ssl.SSLContext, *args: object, **kwargs: object) -> None:
        load(self, *args, **kwargs)
        for path, other in zip(fresh.server, later, strict=True):
            path.write_bytes(other.read_bytes())

    CertMaker(fresh.directory, replace=True).server(["localhost"])
    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_cert_chain", load_and_change)
        assert not policy.look()
    assert in_use(policy) == before
    assert "are changing at this moment" in lines[0]
    assert policy.look()


def test_a_swapped_symlink_is_noticed_as_kubernetes_swaps_it(tmp_path: Path, lines: list[str]) -> None:
    first, second = Certs(tmp_path / "..v1"), Certs(tmp_path / "..v2")
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "..data").symlink_to(first.directory)
    for path in first.directory.iterdir():
        (mount / path.name).symlink_to(Path("..data") / path.name)
    seen = Certs.__new__(Certs)
    seen.directory = mount
    policy = TlsPolicy(
        TlsPaths(*(str(mount / name) for name in ("server.pem", "server-key.pem", "ca.pem"))),
        TlsPaths(*(str(mount / name) for name in ("node-n1.pem", "node-n1-key.pem", "peer-ca.pem"))),
        client_auth="required",
    )
    before = in_use(policy)
    stats = {path: path.stat() for path in second.directory.iterdir()}
    for path in second.directory.iterdir():  # times and sizes tell nothing
        old = (first.directory / path.name).stat()
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert stats
    (mount / "..data_tmp").symlink_to(second.directory)
    (mount / "..data_tmp").replace(mount / "..data")
    assert policy.look()
    after = in_use(policy)
    assert after[0] is not before[0]
    assert after[1] is not before[1]
    assert lines == ["new TLS files for clients are in use", "new TLS files for servers are in use"]


def test_an_authority_that_both_sides_come_to_share_is_not_used(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    before = in_use(policy)
    both = (fresh.directory / "ca.pem").read_bytes() + (fresh.directory / "peer-ca.pem").read_bytes()
    (fresh.directory / "ca.pem").write_bytes(both)
    for _ in range(3):
        assert not policy.look()
    assert in_use(policy) == before
    assert len(lines) == 1
    assert "each client could be a node" in lines[0]


def test_a_second_authority_may_be_added_beside_the_first(fresh: Certs, foreign: Certs) -> None:
    policy = fresh.policy()
    both = (fresh.directory / "ca.pem").read_bytes() + (foreign.directory / "ca.pem").read_bytes()
    (fresh.directory / "ca.pem").write_bytes(both)
    assert policy.look()
    context = policy.port_contexts.clients
    assert context is not None
    assert len(context.get_ca_certs()) == 2


# ----------------------------------------------------------------------- expiry


def test_the_end_of_each_certificate_is_known(fresh: Certs) -> None:
    CertMaker(fresh.directory, replace=True).server(["localhost"], days=20)
    found = {each.side: each for each in fresh.policy().expiries()}
    assert set(found) == {"clients", "servers"}
    assert found["clients"].path == str(fresh.server.cert)
    assert found["servers"].not_after_s - found["clients"].not_after_s == pytest.approx(345 * DAY_S, abs=60)
    assert ClientTls(fresh.paths(fresh.client)).expiries()[0].side == "client"
    assert ClientTls(fresh.paths(None)).expiries() == []


def test_a_certificate_that_ends_soon_is_reported_once_a_day(fresh: Certs, lines: list[str]) -> None:
    policy = fresh.policy()
    end_s = min(each.not_after_s for each in policy.expiries())
    now_ns = 10**18

    def look(left_s: float, *, later_s: float) -> list[str]:
        nonlocal now_ns
        before = len(lines)
        now_ns += int(later_s * NS_PER_S)
        policy.look(now_ns=now_ns, wall_s=end_s - left_s)
        return [each for each in lines[before:] if "server.pem" in each]

    assert look(WARN_S + 60, later_s=1) == []
    assert look(WARN_S - 1, later_s=60) == [
        f"the certificate {fresh.server.cert} ends in 14.0 days: replace it, and it is in use within a second"
    ]
    assert look(WARN_S - 1, later_s=DAY_S - 1) == []
    assert len(look(13 * DAY_S, later_s=2)) == 1
    assert "ended 1.0 days ago" in look(-DAY_S, later_s=DAY_S)[0]
    CertMaker(fresh.directory, replace=True).server(["localhost"], days=400)
    assert look(1, later_s=DAY_S) == []


def test_a_process_that_starts_while_its_files_are_replaced_waits_for_the_rest(
    fresh: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh.client.key.read_bytes()
    fresh.client.key.write_bytes(fresh.server.key.read_bytes())
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            fresh.client.key.write_bytes(whole)

    monkeypatch.setattr("lockring.security.tls_policy.time.sleep", sleep)
    assert ClientTls(fresh.paths(fresh.client)).context is not None
    assert len(pauses) == 2
    fresh.client.key.write_bytes(fresh.server.key.read_bytes())
    with pytest.raises(ConfigError, match="do not fit together"):
        ClientTls(fresh.paths(fresh.client))
    assert sum(pauses) < 1, "a mistake is named soon"


def pauses_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Keep the pauses that the start makes, which then take no time."""
    pauses: list[float] = []
    monkeypatch.setattr("lockring.security.tls_policy.time.sleep", pauses.append)
    return pauses


def encrypt(path: Path) -> None:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda paths: Path(paths.key).unlink(), "cannot be read: no such file"),
        (lambda paths: Path(paths.ca).write_bytes(b"x" * (5 << 20)), "is longer than 4 MiB"),
        (lambda paths: encrypt(Path(paths.key)), "is encrypted"),
    ],
)
def test_what_no_replacement_explains_is_an_error_at_once(
    fresh: Certs, monkeypatch: pytest.MonkeyPatch, damage, said: str
) -> None:
    paths, pauses = fresh.paths(fresh.client), pauses_of(monkeypatch)
    damage(paths)
    with pytest.raises(ConfigError, match=said):
        ClientTls(paths)
    assert pauses == []


def test_an_authority_for_both_sides_is_an_error_at_once(
    fresh: Certs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = pauses_of(monkeypatch)
    with pytest.raises(ConfigError, match="each client could be a node"):
        TlsPolicy(fresh.paths(fresh.server), fresh.paths(fresh.server), client_auth="optional")
    assert pauses == []


@pytest.mark.parametrize("part", ["cert", "key", "ca"])
@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_files_that_have_not_changed_lately_are_not_waited_for(
    fresh: Certs, monkeypatch: pytest.MonkeyPatch, part: str, content: bytes
) -> None:
    paths, pauses = fresh.paths(fresh.client), pauses_of(monkeypatch)
    Path(getattr(paths, part)).write_bytes(content)
    with pytest.raises(ConfigError):
        ClientTls(paths)
    assert len(pauses) == 3, "it may be half written"
    pauses.clear()
    monkeypatch.setattr("lockring.security.tls_policy.wall_ns", lambda: wall_ns() + 10 * NS_PER_S)
    with pytest.raises(ConfigError):
        ClientTls(paths)
    assert pauses == []


def test_a_change_is_found_whatever_time_a_file_is_given(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"x")
    os.utime(path, (0, 0))
    link.symlink_to(path)
    now_ns = wall_ns()
    assert changed_since(TlsPaths(cert=str(path)), now_ns - 60 * NS_PER_S)
    assert not changed_since(TlsPaths(cert=str(path), key=str(link)), now_ns + 60 * NS_PER_S)
    assert not changed_since(TlsPaths(cert=str(tmp_path / "missing")), 0)


@pytest.mark.parametrize("name", ["a..b", ".a", "a" * 64, "ä..b", "a b", "a:1", "*.example"])
def test_a_server_name_that_no_certificate_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--server-name .* which no certificate has"):
        ClientTls(server_name=name)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "bücher.example"])
def test_a_server_name_is_a_host(name: str) -> None:
    assert ClientTls(server_name=name).server_name == name
