"""When the certificates of a cluster's servers end, as the servers themselves report it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from lockring.cli.output import duration
from lockring.protocol import CertificateInfo, ServerStatus
from lockring.protocol.infos import CERTIFICATE_ENDS_SOON_S

_SHOWN_TO: Final = {"clients": "for clients", "servers": "for other servers"}


def certificate_facts(status: ServerStatus | None, wall_s: float) -> list[dict[str, Any]]:
    """Return a server's own certificates as JSON objects."""
    own = [] if status is None else [each for each in status.certificates if _is_own(each)]
    return [
        {
            "shown_to": each.side,
            "file": each.name,
            "ends_at": datetime.fromtimestamp(each.not_after_s, UTC).isoformat(),
            "ends_in_s": round(each.not_after_s - wall_s),
        }
        for each in own
    ]


def about_certificates(statuses: Mapping[str, ServerStatus], wall_s: float) -> list[str]:
    """Return a sentence for each certificate that ends soon, or has ended.

    Args:
        statuses: of the servers that answer, by name.
        wall_s: the time, in seconds since 1970.
    """
    remarks: dict[tuple[str, str, int], list[str]] = {}
    named = [each for status in statuses.values() for each in status.certificates if _is_own(each)]
    for server, status in sorted(statuses.items()):
        for each in _ending(status.certificates, wall_s):
            # All peers of a server would repeat its own words.
            if _is_own(each) or not any(_is_same(each, own) for own in named):
                key = (each.side, each.name, each.not_after_s)
                remarks.setdefault(key, []).append(server)
    return [_sentence(*key, servers, wall_s) for key, servers in remarks.items()]


def _is_own(certificate: CertificateInfo) -> bool:
    return certificate.side in _SHOWN_TO


def _is_same(one: CertificateInfo, other: CertificateInfo) -> bool:
    """Return whether two servers speak of one certificate. Those of an earlier version name no fingerprint."""
    if one.fingerprint and other.fingerprint:
        return one.fingerprint == other.fingerprint
    return one.not_after_s == other.not_after_s


def _ending(certificates: Iterable[CertificateInfo], wall_s: float) -> list[CertificateInfo]:
    return [each for each in certificates if each.not_after_s - wall_s <= CERTIFICATE_ENDS_SOON_S]


def _sentence(side: str, name: str, not_after_s: int, servers: list[str], wall_s: float) -> str:
    left_s = not_after_s - wall_s
    when = f"ends in {duration(left_s)}" if left_s > 0 else f"ended {duration(-left_s)} ago"
    who = ", ".join(servers)
    if side == "peer":
        return f"the certificate that {name} has shown {who} {when}: replace it there, unless that was done since"
    return f"the certificate {name} of {who} {_SHOWN_TO[side]} {when}: replace it, and it is in use within a second"
