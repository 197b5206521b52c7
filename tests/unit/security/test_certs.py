"""The development authority: what it makes is accepted by a strict verifier, and nothing is overwritten."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from lockring.errors import InvalidRequest
from lockring.security.certs import CertFiles, CertMaker
from tests.unit.security.conftest import Certs


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """Run a handshake over a pair of sockets, and return the certificate that the server has seen."""
    here, there = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as tls:
                seen.append(tls.getpeercert())
                tls.recv(1)
        except (ssl.SSLError, OSError) as error:
            seen.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as tls:
            tls.send(b"x")
    finally:
        here.close()
        thread.join()
    assert isinstance(seen[0], dict), seen
    return seen[0]


def strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def contexts(
    certs: Certs, server: CertFiles, client: CertFiles, ca: str
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    accepts = strict(
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs.directory / f"{ca}.pem")
    )
    accepts.verify_mode = ssl.CERT_REQUIRED
    accepts.load_cert_chain(server.cert, server.key)
    dials = strict(ssl.create_default_context(cafile=certs.directory / f"{ca}.pem"))
    dials.load_cert_chain(client.cert, client.key)
    return accepts, dials


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_strict_verifier_accepts_server_and_client(certs: Certs, host: str) -> None:
    accepts, dials = contexts(certs, certs.server, certs.client, "ca")
    assert shake_hands(accepts, dials, host)["subjectAltName"] == (("DNS", "web-1"),)


def test_a_strict_verifier_accepts_nodes_of_each_other(fresh: Certs) -> None:
    other = fresh.maker.node("n2", ["10.0.0.2", "n2.example"])
    accepts, dials = contexts(fresh, other, fresh.node, "peer-ca")
    assert shake_hands(accepts, dials, "n2.example")["subjectAltName"] == (("URI", "urn:lockring:node:n1"),)


def test_a_name_that_the_certificate_lacks_is_refused(certs: Certs) -> None:
    accepts, dials = contexts(certs, certs.server, certs.client, "ca")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(accepts, dials, "elsewhere.example")


def test_a_client_is_not_a_server_and_a_server_not_a_client(certs: Certs) -> None:
    accepts, dials = contexts(certs, certs.client, certs.client, "ca")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(accepts, dials, "web-1")
    accepts, dials = contexts(certs, certs.server, certs.server, "ca")
    with pytest.raises((AssertionError, ssl.SSLError, OSError)):
        shake_hands(accepts, dials, "localhost")


def test_clients_and_nodes_have_authorities_of_their_own(certs: Certs) -> None:
    def issuer(path: Path) -> x509.Name:
        return x509.load_pem_x509_certificate(path.read_bytes()).issuer

    assert issuer(certs.client.cert) == issuer(certs.server.cert) == issuer(certs.directory / "ca.pem")
    assert issuer(certs.node.cert) == issuer(certs.directory / "peer-ca.pem")
    assert issuer(certs.node.cert) != issuer(certs.client.cert)


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_only_the_owner_may_read_a_key(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        certs = Certs(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certs.directory.iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith("-key.pem")} == {0o600}
    assert {mode for name, mode in modes.items() if not name.endswith("-key.pem")} == {0o644}
    assert len(modes) == 10


def test_nothing_is_overwritten_unless_asked_for(fresh: Certs) -> None:
    before = {path: path.read_bytes() for path in fresh.directory.iterdir()}
    for make in (
        fresh.maker.authorities,
        lambda: fresh.maker.server(["localhost"]),
        lambda: fresh.maker.client("web-1"),
        lambda: fresh.maker.node("n1"),
    ):
        with pytest.raises(InvalidRequest, match="exists already; choose another directory"):
            make()
    assert {path: path.read_bytes() for path in fresh.directory.iterdir()} == before
    CertMaker(fresh.directory, replace=True).client("web-1")
    changed = {path.name for path, data in before.items() if path.read_bytes() != data}
    assert changed == {"client-web-1.pem", "client-web-1-key.pem"}


def test_a_key_whose_certificate_is_gone_is_not_overwritten_either(fresh: Certs) -> None:
    fresh.client.cert.unlink()
    before = fresh.client.key.read_bytes()
    with pytest.raises(InvalidRequest, match=r"web-1-key\.pem exists already"):
        fresh.maker.client("web-1")
    assert fresh.client.key.read_bytes() == before
    assert not fresh.client.cert.exists()


@pytest.mark.parametrize("left", [[], ["ca-key"], ["ca-key", "ca"], ["ca-key", "ca", "peer-ca-key"]])
def test_authorities_whose_making_was_cut_off_are_made_and_those_that_are_there_stay(
    tmp_path: Path, left: list[str]
) -> None:
    """Each key is written before its certificate, and the authority of clients before that of servers."""
    maker = CertMaker(tmp_path)
    maker.authorities()
    kept = {each: (tmp_path / f"{each}.pem").read_bytes() for each in ("ca", "peer-ca") if each in left}
    for stem in {"ca", "ca-key", "peer-ca", "peer-ca-key"} - set(left):
        (tmp_path / f"{stem}.pem").unlink()
    made = maker.missing_authorities()
    assert len(made) == 2 - len(kept)
    assert {each: (tmp_path / f"{each}.pem").read_bytes() for each in kept} == kept
    maker.server(["localhost"])
    maker.node("N1")
    assert maker.missing_authorities() == []


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    maker = CertMaker(tmp_path)
    maker.authorities()
    (tmp_path / "ca-key.pem").unlink()
    assert maker.missing_authorities() == []
    with pytest.raises(InvalidRequest, match=r"ca-key\.pem is missing"):
        maker.server(["localhost"])


def test_a_uri_names_a_client(fresh: Certs) -> None:
    files = fresh.maker.client("spiffe://prod/ns/jobs/sa/worker")
    assert files.cert.name == "client-prod-ns-jobs-sa-worker.pem"
    cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://prod/ns/jobs/sa/worker"]


def test_a_certificate_lasts_as_long_as_asked_for(tmp_path: Path) -> None:
    now = datetime(2027, 3, 1, 12, tzinfo=UTC)
    maker = CertMaker(tmp_path, now=now)
    maker.authorities(days=10)
    cert = x509.load_pem_x509_certificate(maker.client("web-1", days=3).cert.read_bytes())
    assert cert.not_valid_after_utc == datetime(2027, 3, 4, 12, tzinfo=UTC)
    assert cert.not_valid_before_utc < now


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda maker: maker.server([]), "needs at least one host"),
        (lambda maker: maker.server(["localhost:9501"]), "leave out the port"),
        (lambda maker: maker.server(["localhost"], stem="../x"), "files cannot be called '../x'"),
        (lambda maker: maker.server(["localhost"], stem="ca"), "files cannot be called 'ca'"),
        (lambda maker: maker.client("a b"), "cannot be the identity of a client"),
        (lambda maker: maker.client("../x"), "cannot be the identity of a client"),
        (lambda maker: maker.node("a/b"), "invalid node id"),
        (lambda maker: maker.client("x", days=0), "is valid for 1 to 36500 days, not for 0"),
    ],
)
def test_a_wrong_argument_is_refused(certs: Certs, make, said: str) -> None:
    before = sorted(certs.directory.iterdir())
    with pytest.raises(InvalidRequest) as caught:
        make(certs.maker)
    assert said in str(caught.value)
    assert sorted(certs.directory.iterdir()) == before


def test_without_an_authority_the_error_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="make an authority first, with lockring certs ca --dir"):
        CertMaker(tmp_path).client("web-1")


def test_an_authority_whose_key_is_anothers_is_refused(fresh: Certs, foreign: Certs) -> None:
    (fresh.directory / "ca-key.pem").write_bytes((foreign.directory / "ca-key.pem").read_bytes())
    with pytest.raises(InvalidRequest, match="is not the key of"):
        fresh.maker.client("web-2")
    (fresh.directory / "ca-key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(InvalidRequest, match="are not an authority of lockring certs ca"):
        fresh.maker.client("web-2")
