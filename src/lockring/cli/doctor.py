"""`lockring doctor`: reaches every server on every port, looks at all that can be wrong, and acquires a real lock."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import click
import msgspec

from lockring._version import __version__
from lockring.addresses import split_address
from lockring.cli.checkup import (
    CheckResult,
    Level,
    TimedStatus,
    about_certificates_of,
    about_clock,
    about_http,
    about_no_http,
    about_rights,
    about_versions,
)
from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import client_options, client_settings, connect, dial_of, roll_of, tls_for
from lockring.cli.http_ports import is_out_of_reach, look_at_http
from lockring.cli.output import count, print_json, say
from lockring.cli.sections import read_settings
from lockring.cli.status import Look, look_twice
from lockring.clock import monotonic_ns, wall_ns
from lockring.config import setting
from lockring.errors import AcquireTimeout, Denied, LockringError, Unavailable
from lockring.exits import FAILED, OK
from lockring.ids import LockName, NodeId
from lockring.names import check_lock_name
from lockring.net.oneshot import Dial, ask_report
from lockring.net.server_line import Roll, ServerLine
from lockring.protocol import ServerStatus
from lockring.protocol.infos import HTTP_OFF
from lockring.slots import SLOTS
from lockring.system_errors import reason_of
from lockring.terminals import command, shown
from lockring.units import NS_PER_S

if TYPE_CHECKING:
    from lockring import Client

_ANSWER_S_MAX: Final = 3.0
"""How long each server may take to answer."""
_CLOCK_S: Final = 2.0
"""Time between two looks at a server's clock."""
_ACQUIRE_S: Final = 5.0
_SLOW_S: Final = 0.5
_ASKED_AT_ONCE_MAX: Final = 32

_A = TypeVar("_A")
_Q = TypeVar("_Q")


class DoctorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring doctor`."""

    lock: Annotated[
        str,
        setting(
            "The lock to acquire and release, which no other client should use.",
            metavar="NAME",
            variable=False,
            file=False,
        ),
    ] = ""


@click.command()
@client_options(DoctorSettings)
def doctor(as_json: bool, **given: Any) -> int:
    """Look at all that can be wrong with a cluster, from this machine: a line for each check.

    Reaches every server on every port, with HTTP and gRPC. Compares versions and the rates of clocks, looks at
    certificates, your rights and the slots, and acquires and releases a lock. Exits with 1 if something is wrong.
    """
    own = read_settings(DoctorSettings, "doctor", given)
    lock = check_lock_name(own.lock or f"lockring-doctor/{socket.gethostname()}")
    settings = client_settings(given)
    findings = _examine(settings, lock)
    wrong = sum(each.level == "bad" for each in findings)
    if as_json:
        print_json({"ok": not wrong, "checks": [each.facts() for each in findings]})
    else:
        _print(findings)
    return FAILED if wrong else OK


def _print(findings: list[CheckResult]) -> None:
    for each in findings:
        about = f"{each.subject}: " if each.subject else ""
        advice = f"; {each.advice}" if each.advice else ""
        say(f"{each.level:4}  {each.check:11}  {shown(about + each.text + advice)}", hang=" " * 19)
    levels: list[Level] = [each.level for each in findings]
    bad, warn = levels.count("bad"), levels.count("warn")
    if bad:
        say(f"{count(bad, 'check')} found something wrong, {warn} have a warning")
    else:
        say(f"nothing is wrong, {count(warn, 'check')} {'has' if warn == 1 else 'have'} a warning")


def _examine(settings: ClientSettings, lock: str) -> list[CheckResult]:
    timeout_s = min(_ANSWER_S_MAX, settings.connect_timeout_s)
    try:
        credential, dial, roll = settings.credential(), dial_of(settings), roll_of(settings)
    except LockringError as error:
        advice = "name a server that runs with --server" if isinstance(error, Unavailable) else ""
        return [CheckResult("bad", "reach", "", str(error), advice)]
    findings = [CheckResult("ok", "reach", "", f"the cluster {roll.cluster} has {_size(roll)}")]
    about_servers, statuses = _about_servers(roll, dial, timeout_s, credential)
    findings += about_servers
    findings += _about_http(statuses, settings, timeout_s)
    look: Look | None = None
    try:
        look = look_twice(settings)
    except Denied as error:
        findings.append(
            CheckResult(
                "warn", "slots", "", str(error), "the right to read every name is needed for this check"
            )
        )
    except LockringError as error:
        findings.append(CheckResult("bad", "slots", "", str(error), "see lockring status"))
    if look is not None:
        findings += _about_cluster(look)
        findings += _about_grpc(look, settings, timeout_s)
    return findings + _about_lock(settings, roll, lock, timeout_s)


def _size(roll: Roll) -> str:
    coordinator = (
        f"a coordinator at {roll.coordinator}" if roll.coordinator else "no coordinator that is known"
    )
    return f"{coordinator} and {count(len(roll.nodes), 'node')}"


# ---------------------------------------------------------------------- each server


def _about_servers(
    roll: Roll, dial: Dial, timeout_s: float, credential: str
) -> tuple[list[CheckResult], dict[str, ServerStatus]]:
    """Ask all servers twice at the same time, with a pause for their clocks.

    Returns:
        The findings, and the status of each server that answers.
    """

    def status_of(server: str) -> TimedStatus | LockringError:
        sent_ns = monotonic_ns()
        try:
            report = ask_report(server, timeout_s=timeout_s, dial=dial, credential=credential)
        except LockringError as error:
            return error
        return TimedStatus(report.status, sent_ns, monotonic_ns())

    servers = roll.all
    firsts = dict(zip(servers, _at_once(status_of, servers), strict=True))
    time.sleep(_CLOCK_S)
    seconds = dict(zip(servers, _at_once(status_of, servers), strict=True))
    findings: list[CheckResult] = []
    for server in servers:
        first, second = firsts[server], seconds[server]
        if isinstance(first, Denied):
            text = f"it answers, and does not tell you its status: {first}"
            findings.append(
                CheckResult("warn", "lock port", server, text, "the right to read every name is needed")
            )
        elif isinstance(first, LockringError):
            text = str(first).removeprefix(f"{server} ")
            findings.append(
                CheckResult("bad", "lock port", server, text, "start it, or look at the network between")
            )
        else:
            took_s = (first.got_ns - first.sent_ns) / NS_PER_S
            text = f"the {first.status.role} answers in {_ms(took_s)}"
            findings.append(_timed("lock port", server, text, took_s))
            if isinstance(second, TimedStatus):
                findings.append(about_clock(server, first, second))
            findings += about_certificates_of(server, first.status, wall_ns() / NS_PER_S)
    known = {server: each.status for server, each in firsts.items() if isinstance(each, TimedStatus)}
    if known:
        findings.append(about_versions(known, __version__))
    return findings, known


def _about_http(
    statuses: Mapping[str, ServerStatus], settings: ClientSettings, timeout_s: float
) -> list[CheckResult]:
    """Ask the HTTP port of each server whether it lives and is ready, and look at its certificate."""
    tls = tls_for(settings)

    def finding(server: str) -> CheckResult:
        place = statuses[server].http
        try:
            if place in ("", HTTP_OFF) or is_out_of_reach(place, server):
                return about_no_http(server, place)
            look = look_at_http(place, tls, timeout_s)
        except (LockringError, OSError) as error:
            why = str(error) if isinstance(error, LockringError) else reason_of(error)
            return CheckResult(
                "warn",
                "HTTP port",
                server,
                f"{place} does not answer: {why}",
                "look at the server's log, or at the network between",
            )
        return about_http(server, place, look, wall_ns() / NS_PER_S)

    return _at_once(finding, tuple(statuses))


def _at_once(question: Callable[[_Q], _A], subjects: Sequence[_Q]) -> list[_A]:
    with ThreadPoolExecutor(max(1, min(_ASKED_AT_ONCE_MAX, len(subjects)))) as pool:
        return list(pool.map(question, subjects))


def _ms(duration_s: float) -> str:
    return f"{1000 * duration_s:.1f} ms"


def _timed(check: str, subject: str, text: str, took_s: float) -> CheckResult:
    if took_s <= _SLOW_S:
        return CheckResult("ok", check, subject, text)
    return CheckResult("warn", check, subject, f"{text}, which is slow", "look at the load of both machines")


def _about_cluster(look: Look) -> list[CheckResult]:
    health, state = look.health, look.state
    expected = health.single if len(state.members) == 1 else ""
    findings = [CheckResult("bad", "slots", "", each, "see lockring status") for each in health.reasons]
    if not health.reasons and health.slots_served >= SLOTS:
        findings.append(CheckResult("ok", "slots", "", f"all {SLOTS} slots are served"))
    elif not health.reasons:
        findings.append(CheckResult("bad", "slots", "", health.heading, "see lockring status"))
    for each in health.remarks:
        advice = "run two nodes or more" if each == expected else "see lockring status"
        findings.append(CheckResult("warn", "slots", "", each, advice))
    spokesman = look.spokesman
    if spokesman is not None and spokesman.store:
        if spokesman.store_failing_ms < 0:
            findings.append(CheckResult("ok", "store", "", f"the store works: {spokesman.store}"))
        others = spokesman.standbys
        if spokesman.leader and not others:
            findings.append(
                CheckResult(
                    "warn",
                    "leader",
                    "",
                    f"{spokesman.leader} leads, and none stands by",
                    "run another coordinator on the same store",
                )
            )
        elif spokesman.leader:
            findings.append(
                CheckResult("ok", "leader", "", f"{spokesman.leader} leads, standing by: {', '.join(others)}")
            )
    return findings


# ---------------------------------------------------------------------- gRPC


def _about_grpc(look: Look, settings: ClientSettings, timeout_s: float) -> list[CheckResult]:
    """Ask each node's gRPC port for its health: with the library where it is installed, else by a connection alone."""
    doors = [
        (member.replica.node, member.grpc) for _, member in sorted(look.state.members.items()) if member.grpc
    ]
    if not doors:
        return []

    with suppress(ImportError):
        # Before the clock is read: it takes half a second.
        import grpc_health.v1.health_pb2_grpc  # noqa: F401

    def finding(door: tuple[str, str]) -> CheckResult:
        node, address = door
        began_ns = monotonic_ns()
        try:
            what = _grpc_health(address, settings, timeout_s)
        except (LockringError, OSError) as error:
            why = str(error) if isinstance(error, LockringError) else reason_of(error)
            return CheckResult(
                "bad", "gRPC port", node, f"{address} does not answer: {why}", "look at the node's log"
            )
        took_s = (monotonic_ns() - began_ns) / NS_PER_S
        return _timed("gRPC port", node, f"{address} {what} in {_ms(took_s)}", took_s)

    return _at_once(finding, doors)


def _grpc_health(address: str, settings: ClientSettings, timeout_s: float) -> str:
    """Return what a gRPC port does, as a verb.

    Raises:
        OSError: it cannot be reached.
        LockringError: it answers that it does not serve, or not at all.
    """
    try:
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc
    except ImportError:
        socket.create_connection(split_address(address), timeout=timeout_s).close()
        return "accepts connections"
    if tls_for(settings) is not None:
        options = [("grpc.ssl_target_name_override", settings.server_name)] if settings.server_name else []
        channel = grpc.secure_channel(address, _grpc_credentials(settings), options)
    else:
        channel = grpc.insecure_channel(address)
    with channel:
        try:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError as error:
            details = getattr(error, "details", lambda: "")()
            raise LockringError(str(details or error)) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise LockringError("it says that it does not serve at present")
    return "serves"


def _grpc_credentials(settings: ClientSettings) -> Any:
    import grpc

    def content(path: str) -> bytes | None:
        if not path:
            return None
        with open(path, "rb") as file:
            return file.read()

    return grpc.ssl_channel_credentials(content(settings.ca), content(settings.key), content(settings.cert))


# ---------------------------------------------------------------------- a real lock


def _about_lock(settings: ClientSettings, roll: Roll, lock: str, timeout_s: float) -> list[CheckResult]:
    """Look at the rights to a lock, acquire and release it, and measure that."""
    findings: list[CheckResult] = []
    with connect(settings, tells=False, owner=f"lockring doctor on {socket.gethostname()}") as client:
        with suppress(LockringError):  # a look that fails does not keep from the acquire, which says why
            found = client.describe(lock, timeout=timeout_s)
            line = ServerLine(
                roll.address_of(NodeId(found.primary)),
                timeout_s=timeout_s,
                dial=dial_of(settings),
                credential=settings.credential(),
            )
            with closing(line):
                verbs, identity = line.rights(LockName(lock))
            findings.append(about_rights(verbs, identity, lock))
        findings.append(_acquired(client, lock))
    return findings


def _acquired(client: Client, lock: str) -> CheckResult:
    began_ns = monotonic_ns()
    try:
        grant = client.lock(lock).acquire(timeout=_ACQUIRE_S)
        held_ns = monotonic_ns()
        grant.release()
    except Denied as error:
        return CheckResult("warn", "lock", lock, str(error), "name a lock that you may acquire with --lock")
    except AcquireTimeout as error:
        return CheckResult(
            "warn", "lock", lock, str(error), f"name another lock with --lock; see {command('why', lock)}"
        )
    except LockringError as error:
        return CheckResult("bad", "lock", lock, str(error), f"see {command('why', lock)}")
    done_ns = monotonic_ns()
    acquire_s, release_s = (held_ns - began_ns) / NS_PER_S, (done_ns - held_ns) / NS_PER_S
    text = f"acquired in {_ms(acquire_s)} with the token {grant.fencing_token}, released in {_ms(release_s)}"
    return _timed("lock", lock, text, acquire_s + release_s)
