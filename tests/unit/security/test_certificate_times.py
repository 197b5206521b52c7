"""The times of a certificate are those that a library reads from it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from lockring.errors import InvalidRequest
from lockring.security.certificate_times import certificates_in
from lockring.security.certs import CertMaker
from tests.unit.security.conftest import Certs


@pytest.mark.parametrize("year", [1975, 1999, 2026, 2049, 2050, 2120])
def test_the_times_are_those_that_a_library_reads(tmp_path: Path, year: int) -> None:
    maker = CertMaker(tmp_path, now=datetime(year, 3, 1, 12, 30, 59, tzinfo=UTC))
    maker.authorities()
    pem = maker.client("web-1", days=700).cert.read_bytes()
    known = x509.load_pem_x509_certificate(pem)
    (found,) = certificates_in(pem.decode())
    assert found.times.not_before_s == known.not_valid_before_utc.timestamp()
    assert found.times.not_after_s == known.not_valid_after_utc.timestamp()
    assert found.fingerprint == known.fingerprint(hashes.SHA256()).hex()


def test_all_certificates_of_a_chain_are_read(certs: Certs) -> None:
    texts = [certs.client.cert.read_text(), (certs.directory / "ca.pem").read_text()]
    found = certificates_in("some words\n" + "\nbetween\n".join(texts) + "after")
    assert found == [*certificates_in(texts[0]), *certificates_in(texts[1])]
    assert found[1].times.not_after_s - found[0].times.not_after_s > timedelta(days=3000).total_seconds()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no certificate in PEM form"),
        ("-----BEGIN CERTIFICATE-----\nMIIB", "is cut off"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "is damaged"),
        ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----", "is damaged"),
    ],
)
def test_what_is_not_a_certificate_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        certificates_in(text)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_certificate_is_read_or_refused_and_nothing_else(certs: Certs, at: int, byte: int) -> None:
    import base64

    body = "".join(certs.client.cert.read_text().splitlines()[1:-1])
    der = bytearray(base64.b64decode(body))
    der[at % len(der)] = byte
    text = base64.b64encode(bytes(der)).decode()
    try:
        (found,) = certificates_in(f"-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----")
    except InvalidRequest:
        return
    assert found.times.not_after_s > -(10**12)
