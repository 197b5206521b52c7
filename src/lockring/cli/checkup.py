"""The findings of `lockring doctor`: a line for each check, from what servers have said. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from lockring.cli.http_ports import HttpLook
from lockring.cli.output import count, duration
from lockring.protocol import ServerStatus
from lockring.protocol.infos import CERTIFICATE_ENDS_SOON_S, HTTP_OFF
from lockring.units import NS_PER_MS, NS_PER_S

Level = Literal["ok", "warn", "bad"]

RATE_WARN: Final = 0.01
RATE_BAD: Final = 0.04
"""By how much the rate of a server's clock may differ from this one's: leases allow for 5 % between two clocks."""
_DAY_S: Final = 86_400
_HTTP: Final = "HTTP port"
_OK: Final = 200


class CheckResult(NamedTuple):
    """The result of one check.

    Attributes:
        level: "ok"; "warn" if something will be wrong, or could not be checked; "bad" if something is wrong.
        check: a word for the check.
        subject: the server or lock that it is about, "" for the cluster.
        text: a sentence.
        advice: what to do, "" if nothing.
    """

    level: Level
    check: str
    subject: str
    text: str
    advice: str = ""

    def facts(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**self._asdict(), "subject": self.subject or None, "advice": self.advice or None}


class TimedStatus(NamedTuple):
    """A server's status, and the time around the question, on this process' clock in nanoseconds."""

    status: ServerStatus
    sent_ns: int
    got_ns: int


def about_clock(server: str, first: TimedStatus, second: TimedStatus) -> CheckResult:
    """Compare the rate of a server's clock with this process' own, over the time between two questions."""
    check = "clock"
    if first.status.up_ms < 0 or second.status.up_ms < 0:
        return CheckResult("warn", check, server, "its version does not say how its clock goes", "upgrade it")
    theirs_ns = (second.status.up_ms - first.status.up_ms) * NS_PER_MS
    if theirs_ns < 0 or first.status.incarnation != second.status.incarnation:
        return CheckResult(
            "warn", check, server, "it was started again meanwhile", "run lockring doctor again"
        )
    # It read its clock at some moment between question and answer, and cut the reading to a whole millisecond.
    least_ns = second.sent_ns - first.got_ns - NS_PER_MS
    most_ns = second.got_ns - first.sent_ns + NS_PER_MS
    off_ns = max(0, least_ns - theirs_ns, theirs_ns - most_ns)
    rate = off_ns / max(1, (least_ns + most_ns) // 2)
    span = duration((second.sent_ns - first.sent_ns) / NS_PER_S)
    if rate < RATE_WARN:
        return CheckResult("ok", check, server, f"its clock goes as fast as this one's, over {span}")
    text = (
        f"its clock differs from this one's by {100 * rate:.1f} % at least, over {span}; leases allow for 5 %"
    )
    advice = "look at the time service and the virtual machine of both; measure again"
    return CheckResult("bad" if rate >= RATE_BAD else "warn", check, server, text, advice)


def about_versions(statuses: Mapping[str, ServerStatus], own: str) -> CheckResult:
    """Compare the versions of the servers with each other, and with this command's."""
    versions: dict[str, list[str]] = {}
    for server, status in statuses.items():
        versions.setdefault(status.software or "an unknown version", []).append(server)
    if list(versions) == [own]:
        return CheckResult("ok", "versions", "", f"all servers run lockring {own}, as this command does")
    listed = "; ".join(f"{version} on {', '.join(servers)}" for version, servers in sorted(versions.items()))
    text = f"this command is lockring {own}, the servers run {listed}"
    return CheckResult(
        "warn", "versions", "", text, "finish the upgrade: versions work next to each other, for its duration"
    )


def about_certificates_of(server: str, status: ServerStatus, wall_s: float) -> list[CheckResult]:
    """Return a finding for each of a server's own certificates."""
    findings = []
    for each in status.certificates:
        if each.side not in ("clients", "servers"):
            continue
        left_s = each.not_after_s - wall_s
        what = f"the certificate {each.name} for {each.side}"
        if left_s <= 0:
            text, level = f"{what} ended {duration(-left_s)} ago", "bad"
        else:
            text, level = (
                f"{what} ends in {count(int(left_s // _DAY_S), 'day')}",
                "ok" if left_s > CERTIFICATE_ENDS_SOON_S else "warn",
            )
        advice = "" if level == "ok" else "replace the file: it is in use within a second"
        findings.append(CheckResult(level, "certificate", server, text, advice))  # type: ignore[arg-type]
    return findings


def about_no_http(server: str, place: str) -> CheckResult:
    """Return the finding for a server whose HTTP port cannot be asked.

    Args:
        server: HOST:PORT of the server.
        place: its HTTP port, as its status names it: see `ServerStatus.http`.
    """
    if not place:
        return CheckResult("warn", _HTTP, server, "its version does not say where its HTTP is", "upgrade it")
    if place == HTTP_OFF:
        text = "HTTP is off, so that probes and monitoring have nothing to ask"
        return CheckResult(
            "warn", _HTTP, server, text, "start it without --no-http, or name a free --http-listen"
        )
    text = f"{place} is reached on that machine alone"
    return CheckResult("warn", _HTTP, server, text, "run lockring doctor there, or name an --http-listen")


def about_http(server: str, place: str, look: HttpLook, wall_s: float) -> CheckResult:
    """Return the finding for an HTTP port that answers.

    Args:
        server: HOST:PORT of the server.
        place: HOST:PORT of its HTTP port.
        look: its answers.
        wall_s: the time, in seconds since 1970.
    """
    took_ms = 1000 * max(look.live.took_s, look.ready.took_s)
    faults = []
    if look.live.status != _OK:
        faults.append(f"/livez answers {look.live.status}")
    if look.ready.status != _OK:
        faults.append(f"/readyz answers {look.ready.status}: {look.ready.text}")
    text = f"{place}: {', '.join(faults) or f'/livez and /readyz answer in {took_ms:.1f} ms'}"
    advice = "see lockring status" if faults else ""
    if look.live.ends_at_s is not None:
        left_s = look.live.ends_at_s - wall_s
        text += f"; its certificate ends in {count(int(left_s // _DAY_S), 'day')}"
        if left_s <= CERTIFICATE_ENDS_SOON_S:
            faults.append("certificate")
            advice = advice or "replace its file: it is in use within a second"
    return CheckResult("warn" if faults else "ok", _HTTP, server, text, advice)


def about_rights(rights: tuple[str, ...] | None, identity: str, lock: str) -> CheckResult:
    """Return what the caller may do with the lock of the check."""
    if rights is None:
        return CheckResult(
            "warn", "rights", "", "the node's version does not say what you may do", "upgrade it"
        )
    if not identity:
        return CheckResult("ok", "rights", "", "identities are not checked: every client may do everything")
    listed = ", ".join(rights) or "nothing"
    text = f"you are {identity}, and may do this with {lock!r}: {listed}"
    if "acquire" in rights:
        return CheckResult("ok", "rights", "", text)
    return CheckResult("warn", "rights", "", text, "name a lock that you may acquire with --lock")
