"""When a certificate in a PEM file begins and ends, read without a library: the standard one shows only a peer's.

And its fingerprint, which tells it from all others: two that were made in the same second end in the same one.

A certificate is a tree of DER values, each a tag, a length and a content; the two times are the fifth value of the
first part. Only certificates that TLS has loaded are read, so this need not check them.
"""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime
from typing import Final, NamedTuple

from lockring.errors import InvalidRequest

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class ValidTime(NamedTuple):
    """The time in which a certificate is valid, in seconds since 1970."""

    not_before_s: float
    not_after_s: float


class FileCertificate(NamedTuple):
    """A certificate in a file.

    Attributes:
        times: when it is valid.
        fingerprint: see `fingerprint_of`.
    """

    times: ValidTime
    fingerprint: str


def fingerprint_of(der: bytes) -> str:
    """Return the SHA-256 of a certificate in DER form, in hexadecimal digits."""
    return hashlib.sha256(der).hexdigest()


def certificates_in(pem: str) -> list[FileCertificate]:
    """Return all certificates in a PEM text, in their order.

    Raises:
        InvalidRequest: the text has none, or one is malformed.
    """
    found = []
    rest = pem
    while True:
        _, begin, rest = rest.partition(_BEGIN)
        if not begin:
            break
        body, end, rest = rest.partition(_END)
        if not end:
            raise InvalidRequest("the last certificate in it is cut off")
        try:
            der = ssl.PEM_cert_to_DER_cert(f"{_BEGIN}\n{body.strip()}\n{_END}")
            found.append(FileCertificate(_time_of(der), fingerprint_of(der)))
        except (ValueError, IndexError):
            raise InvalidRequest("a certificate in it is damaged") from None
    if not found:
        raise InvalidRequest("it has no certificate in PEM form")
    return found


class _Value(NamedTuple):
    tag: int
    content: bytes


def _time_of(der: bytes) -> ValidTime:
    certificate = _values(der)[0]
    signed = _values(certificate.content)[0]
    if certificate.tag != _SEQUENCE or signed.tag != _SEQUENCE:
        raise ValueError(der)
    fields = _values(signed.content)
    if fields[0].tag == _VERSION:
        fields = fields[1:]
    _serial, _algorithm, _issuer, validity = fields[:4]
    begin, end = _values(validity.content)
    return ValidTime(_seconds(begin), _seconds(end))


def _values(content: bytes) -> list[_Value]:
    found, at = [], 0
    while at < len(content):
        tag, size = content[at], content[at + 1]
        at += 2
        if size >= 0x80:
            count = size - 0x80
            size = int.from_bytes(content[at : at + count], "big")
            at += count
        if at + size > len(content):
            raise ValueError(content)
        found.append(_Value(tag, content[at : at + size]))
        at += size
    return found


def _seconds(value: _Value) -> float:
    text = value.content.decode("ascii")
    if value.tag == _UTC_TIME:
        # Two digits of the year: 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
        text = ("19" if text >= "50" else "20") + text
    elif value.tag != _GENERALIZED_TIME:
        raise ValueError(value)
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
