"""A certificate authority for development and tests, as `lockring certs` makes it.

There are two authorities, since a client's certificate must not make a node: one for clients and for the servers that
they talk to, and one for servers among themselves. Each certificate has all extensions that a strict verifier
(`ssl.VERIFY_X509_STRICT`, the default of Python 3.13) demands.

Its keys lie unencrypted in files that their owner alone may read. For production, use an authority that guards them.

Importing this module needs the package `cryptography`, the extra `lockring[certs]`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lockring.errors import InvalidRequest
from lockring.names import check_node_id
from lockring.security.peer_certificates import NODE_URN
from lockring.security.whole_files import PRIVATE, PUBLIC, write_whole
from lockring.system_errors import reason_of

CLIENTS_CA: Final = "ca"
"""The stem of the files of the authority for clients, and for the servers that they talk to."""

PEERS_CA: Final = "peer-ca"
"""The stem of the files of the authority for servers among themselves."""

_AUTHORITIES: Final = {
    CLIENTS_CA: "lockring development CA",
    PEERS_CA: "lockring development CA of servers",
}
"""The names in their certificates, by the stems of their files."""

CA_DAYS: Final = 3_650
LEAF_DAYS: Final = 365
DAYS_MAX: Final = 36_500

_EARLIER: Final = timedelta(hours=1)
"""How long before now a certificate is valid already: the other machine's clock may be behind."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,240}")
_HOST: Final = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH


class CertFiles(NamedTuple):
    """The two files of a certificate."""

    cert: Path
    key: Path


class _Authority(NamedTuple):
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class CertMaker:
    """Makes authorities and certificates in one directory.

    Args:
        directory: where the files are and go; made if it is missing.
        replace: whether files that are there may be replaced.
        now: the time, with a time zone; the system's if None.
    """

    def __init__(self, directory: Path, *, replace: bool = False, now: datetime | None = None) -> None:
        self._directory = directory
        self._replace = replace
        self._now = now if now is not None else datetime.now(UTC)

    def files(self, stem: str) -> CertFiles:
        """Return the paths of a certificate and its key."""
        return CertFiles(self._directory / f"{stem}.pem", self._directory / f"{stem}-key.pem")

    def authorities(self, *, days: int = CA_DAYS) -> list[CertFiles]:
        """Make both authorities, and return their files.

        Raises:
            InvalidRequest: one is there already and may not be replaced, or the directory cannot be written.
        """
        self._require_absent(*_AUTHORITIES)
        return [self._authority(stem, title, days) for stem, title in _AUTHORITIES.items()]

    def missing_authorities(self, *, days: int = CA_DAYS) -> list[CertFiles]:
        """Make each of the two authorities whose certificate is missing, and return their files.

        One whose certificate is there stays, since others trust it. A key without a certificate is what was left when
        the making ended in between, and is replaced.

        Raises:
            InvalidRequest: the directory cannot be written.
        """
        made = CertMaker(self._directory, replace=True, now=self._now)
        return [
            made._authority(stem, title, days)
            for stem, title in _AUTHORITIES.items()
            if not self.files(stem).cert.exists()
        ]

    def server(self, hosts: Sequence[str], *, stem: str = "server", days: int = LEAF_DAYS) -> CertFiles:
        """Make the certificate that a server shows to clients.

        Args:
            hosts: names and addresses under which clients reach it.
            stem: the first part of the files' names.
            days: how long it is valid.

        Raises:
            InvalidRequest: a host is malformed, there is no authority, or files are in the way.
        """
        names = [_host(each) for each in hosts]
        if not names:
            raise InvalidRequest(
                "a server's certificate needs at least one host, such as localhost or 127.0.0.1"
            )
        return self._leaf(CLIENTS_CA, _stem(stem), hosts[0], names, usages=(_SERVER,), days=days)

    def client(self, identity: str, *, days: int = LEAF_DAYS) -> CertFiles:
        """Make a client's certificate.

        Args:
            identity: its name, such as "web-1", or a URI, such as "spiffe://prod/ns/jobs/sa/worker".
            days: how long it is valid.

        Raises:
            InvalidRequest: the identity is malformed, there is no authority, or files are in the way.
        """
        if _URI.fullmatch(identity):
            name: x509.GeneralName = x509.UniformResourceIdentifier(identity)
            stem = re.sub(r"[^A-Za-z0-9.-]+", "-", identity.partition(":")[2]).strip("-.")
        elif _NAME.fullmatch(identity):
            name, stem = x509.DNSName(identity), identity
        else:
            raise InvalidRequest(
                f"{identity!r} cannot be the identity of a client: use letters, digits, '.', '-' and '_', or a URI"
            )
        return self._leaf(CLIENTS_CA, f"client-{stem}", identity[:64], [name], usages=(_CLIENT,), days=days)

    def node(self, node: str, hosts: Iterable[str] = (), *, days: int = LEAF_DAYS) -> CertFiles:
        """Make the certificate that a server shows to other servers. It names the node id, so that it makes no other.

        Args:
            node: the node's id, or a name for a coordinator.
            hosts: names and addresses to include.
            days: how long it is valid.

        Raises:
            InvalidRequest: the id or a host is malformed, there is no authority, or files are in the way.
        """
        check_node_id(node)
        names = [x509.UniformResourceIdentifier(NODE_URN + node), *(_host(each) for each in hosts)]
        return self._leaf(PEERS_CA, f"node-{node}", node, names, usages=(_SERVER, _CLIENT), days=days)

    # ----------------------------------------------------------------------- inner

    def _authority(self, stem: str, title: str, days: int) -> CertFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(title)
        builder = self._builder(subject, subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=True), critical=True)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        return self._write(stem, builder.sign(key, hashes.SHA256()), key)

    def _leaf(
        self,
        authority_stem: str,
        stem: str,
        title: str,
        names: list[x509.GeneralName],
        *,
        usages: Sequence[x509.ObjectIdentifier],
        days: int,
    ) -> CertFiles:
        self._require_absent(stem)
        authority = self._load(authority_stem)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_subject(title), authority.cert.subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(is_ca=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        identifier = authority.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        return self._write(stem, builder.sign(authority.key, hashes.SHA256()), key)

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        if not 1 <= days <= DAYS_MAX:
            raise InvalidRequest(f"a certificate is valid for 1 to {DAYS_MAX} days, not for {days}")
        builder = x509.CertificateBuilder(
            subject_name=subject,
            issuer_name=issuer,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=self._now - _EARLIER,
            not_valid_after=self._now + timedelta(days=days),
        )
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)

    def _load(self, stem: str) -> _Authority:
        files = self.files(stem)
        try:
            cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
            key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        except FileNotFoundError as error:
            raise InvalidRequest(
                f"{error.filename} is missing: make an authority first, with lockring certs ca --dir {self._directory}"
            ) from None
        except OSError as error:
            raise InvalidRequest(f"{error.filename} cannot be read: {reason_of(error)}") from error
        except (ValueError, TypeError) as error:
            raise InvalidRequest(
                f"{files.cert} and {files.key} are not an authority of lockring certs ca: {error}"
            ) from (error)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
            raise InvalidRequest(
                f"{files.key} is not the key of {files.cert}; make them with lockring certs ca"
            )
        return _Authority(cert, key)

    def _require_absent(self, *stems: str) -> None:
        """Check all files before any is written."""
        for path in (path for stem in stems for path in self.files(stem)):
            if path.exists() and not self._replace:
                raise InvalidRequest(
                    f"{path} exists already; choose another directory with --dir, or replace it with --force"
                )

    def _write(self, stem: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> CertFiles:
        files = self.files(stem)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"{self._directory} cannot be made: {reason_of(error)}") from error
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(files.key, secret, mode=PRIVATE, replace=self._replace)
        write_whole(
            files.cert, cert.public_bytes(serialization.Encoding.PEM), mode=PUBLIC, replace=self._replace
        )
        return files


def _subject(title: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title[:64])])


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        if not _HOST.fullmatch(host) or len(host) > 253:
            raise InvalidRequest(
                f"{host!r} is neither the name of a host nor an address; leave out the port"
            ) from None
        return x509.DNSName(host)


def _stem(stem: str) -> str:
    if not _NAME.fullmatch(stem) or stem in (CLIENTS_CA, PEERS_CA):
        raise InvalidRequest(f"files cannot be called {stem!r}: use letters, digits, '.', '-' and '_'")
    return stem
