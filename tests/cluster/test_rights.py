"""Identities and rights in a cluster of real processes over TLS: at the lock ports, over gRPC, by commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

import lockring
from lockring.errors import Denied, Unauthenticated
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.security.certs import CertMaker
from lockring.security.tokens import hash_of, new_token
from lockring.server.access_settings import AccessSettings
from lockring.testing import LocalCluster
from tests.cluster.conftest import CALM, LONG_LEASE_S
from tests.cluster.grpc_calls import Caller, refusal
from tests.cluster.running import running
from tests.processes import PATIENCE_S, children_of, eventually, ports_in_a_row

BRIEF_S = 15
"""How long a certificate is valid whose end a test waits for: long enough to connect with it on a busy machine."""

ROLES = """
[[role]]
name = "operator"
rules = ["admin"]

[[role]]
name = "worker"
rules = ["acquire jobs/*", "read jobs/*", "watch jobs/*"]

[[certificate]]
san = "test"
roles = ["operator"]

[[certificate]]
san = "worker"
roles = ["worker"]

[[certificate]]
san = "brief"
roles = ["worker"]
"""


class Doors(NamedTuple):
    """A cluster whose servers check rights, and what its clients show."""

    cluster: LocalCluster
    token: str

    @property
    def directory(self) -> Path:
        return self.cluster.directory

    def allow(self, *, with_token: bool = True) -> None:
        """Write the ACL file."""
        entry = f'[[token]]\nid = "web-1"\nsha256 = "{hash_of(self.token).hex()}"\nroles = ["worker"]\n'
        write(self.directory / "acl.toml", ROLES + (entry if with_token else ""))

    def files(self, identity: str = "test") -> dict[str, str]:
        """The arguments of a client with this certificate."""
        assert self.cluster.certificates is not None
        maker = CertMaker(self.cluster.certificates.directory, replace=True)
        files = maker.files(f"client-{identity}")
        if not files.cert.exists():
            files = maker.client(identity)
        return {**self.cluster.certificates.client_files, "cert": str(files.cert), "key": str(files.key)}

    def client(self, identity: str = "test", **more: Any) -> lockring.Client:
        return lockring.Client(self.cluster.servers, ttl=LONG_LEASE_S, **self.files(identity), **more)

    def environment(self, identity: str = "test", **more: str) -> dict[str, str]:
        files = {f"LOCKRING_{key.upper()}": value for key, value in self.files(identity).items()}
        return {**os.environ, "LOCKRING_SERVER": self.cluster.servers, **files, **more}

    def command(self, *arguments: str, identity: str = "test") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lockring", *arguments],
            env=self.environment(identity),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def caller(self, node: str, token: str, *, session: str = "") -> Caller:
        """A gRPC client of a node: a token beside a certificate that alone could do nothing, or that of a worker."""
        files = self.files("nobody" if token else "worker")
        ca, cert, key = (Path(files[each]).read_bytes() for each in ("ca", "cert", "key"))
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        if token:
            shown = grpc.access_token_call_credentials(token)
            credentials = grpc.composite_channel_credentials(credentials, shown)
        return Caller(self.cluster.grpc_address_of(node), session=session, credentials=credentials)

    def audit(self) -> list[dict[str, Any]]:
        text = (self.directory / "audit.log").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def write(path: Path, text: str) -> None:
    """Replace a file at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """Three nodes over TLS that enforce rights, and one audit log of all of them."""
    directory = tmp_path_factory.mktemp("doors")
    access = AccessSettings(
        auth="enforcing", acl_file=str(directory / "acl.toml"), audit_log=str(directory / "audit.log")
    )
    token = new_token("web-1")
    with LocalClusterWith(directory, access, token) as found:
        yield found


class LocalClusterWith:
    """A cluster whose ACL file is there before its servers are."""

    def __init__(self, directory: Path, access: AccessSettings, token: str) -> None:
        cluster = LocalCluster(nodes=3, tls=True, grpc=True, directory=directory, access=access, **CALM)
        self._doors = Doors(cluster, token)
        self._doors.allow()

    def __enter__(self) -> Doors:
        self._doors.cluster.__enter__()
        return self._doors

    def __exit__(self, *error: Any) -> None:
        self._doors.cluster.__exit__(*error)


def a_lock_of(doors: Doors, wanted: Callable[[str], bool]) -> str:
    """A lock that a worker may acquire, at a primary as wanted."""
    names = (f"jobs/{number}" for number in range(1_000))
    return next(name for name in names if wanted(doors.cluster.primary_of(name)))


# ----------------------------------------------------------------------- the lock ports


def test_a_certificate_has_the_rights_of_its_roles_and_no_others(doors: Doors) -> None:
    with doors.client("worker") as client:
        client.lock("jobs/a").acquire(timeout=PATIENCE_S).release()
        with pytest.raises(Denied) as denied:
            client.lock("other/a").acquire(timeout=PATIENCE_S)
        assert denied.value.right == "acquire"
        with pytest.raises(Denied):
            client.state(timeout=PATIENCE_S)
        assert [each.name for each in client.locks()] == []
    with doors.client("nobody") as client, pytest.raises(Denied, match="nobody has no role"):
        client.lock("jobs/a").acquire(timeout=PATIENCE_S)


def test_a_token_counts_more_than_the_certificate_beside_it(doors: Doors, tmp_path: Path) -> None:
    file = tmp_path / "web-1.token"
    file.write_text(doors.token)
    with doors.client("nobody", token_file=file) as client:
        client.lock("jobs/b").acquire(timeout=PATIENCE_S).release()
    file.write_text(new_token("web-1"))
    with doors.client("test", token_file=file) as client, pytest.raises(Unauthenticated):
        client.lock("jobs/b").acquire(timeout=PATIENCE_S)


# ----------------------------------------------------------------------- gRPC, and what a node forwards


def test_a_call_is_judged_by_the_identity_behind_it_wherever_the_lock_is(doors: Doors) -> None:
    for node in doors.cluster.nodes:
        name = a_lock_of(doors, lambda primary, node=node: primary == node)  # type: ignore[misc]
        with doors.caller("N1", doors.token) as caller:
            caller.lock(name, "k")
            assert [each.owner for each in caller.find(name).lock.holders] == ["k"]
            (kept,) = caller.keep(caller.held(name, "k"))
            assert kept.verdict == pb.VERDICT_HELD
            caller.unlock(name, "k")
            with pytest.raises(grpc.RpcError) as denied:
                caller.lock(f"other/{node}", "k")
            assert refusal(denied.value).code == grpc.StatusCode.PERMISSION_DENIED

        def acquired(name: str = name) -> list[dict[str, Any]]:
            return [each for each in doors.audit() if each["act"] == "acquire" and each.get("name") == name]

        line = eventually(acquired, lambda: "its record")[-1]
        assert (line["server"], line["who"], line["how"]) == (node, "web-1", "token")
        assert line["via"] == "N1"


def test_others_see_no_id_by_which_a_lock_could_be_released(doors: Doors) -> None:
    name = a_lock_of(doors, lambda primary: primary == "N2")
    with doors.caller("N1", doors.token) as owner, doors.caller("N1", "", session=owner.session) as other:
        owner.lock(name, "k")
        (own,), (shown,) = (each.find(name).lock.holders for each in (owner, other))
        assert own.idempotency_key == "k"
        assert shown.idempotency_key == ""
        assert shown.session not in ("", own.session)
        with pytest.raises(grpc.RpcError) as refused:
            other.unlock(name, "k")
        assert refusal(refused.value).code == grpc.StatusCode.FAILED_PRECONDITION
        owner.unlock(name, "k")


def test_a_drain_over_grpc_is_judged_by_the_identity_behind_it(doors: Doors) -> None:
    with doors.caller("N2", doors.token) as caller, pytest.raises(grpc.RpcError) as denied:
        caller.drain("N3")
    assert refusal(denied.value).code == grpc.StatusCode.PERMISSION_DENIED
    assert doors.cluster.state().members["N3"].condition == "active"  # type: ignore[index]


# ----------------------------------------------------------------------- commands


def test_commands_say_which_right_is_missing(doors: Doors) -> None:
    for arguments in (
        ("status",),
        ("ring",),
        ("drain", "N1"),
        ("break", "jobs/d", "--token", "7", "--force"),
    ):
        done = doors.command(*arguments, identity="worker")
        assert done.returncode == 77, (arguments, done.stdout, done.stderr)
        assert "certificate worker may not" in done.stderr


def test_status_shows_the_rights_that_are_in_force(doors: Doors) -> None:
    done = doors.command("status")
    assert done.returncode == 0, done.stderr
    assert "rights are enforcing, by the ACL file of edition " in done.stdout + done.stderr
    found = json.loads(doors.command("status", "--json").stdout)
    editions = {each["acl_edition"] for each in found["members"]} | {found["coordinator_acl_edition"]}
    assert len(editions) == 1
    assert {each["auth"] for each in found["members"]} == {found["coordinator_auth"]} == {"enforcing"}
    assert found["remarks"] == []


def test_a_killed_lockring_lock_leaves_no_lock_behind_though_its_servers_ask_for_a_token(
    doors: Doors, tmp_path: Path
) -> None:
    file = tmp_path / "web-1.token"
    file.write_text(doors.token)
    started = tmp_path / "started"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "lockring", "lock", "jobs/guarded", "--ttl", str(LONG_LEASE_S), "--"),
            *("sh", "-c", f"touch {started}; sleep 600"),
        ],
        env=doors.environment("nobody", LOCKRING_TOKEN_FILE=str(file)),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(started.exists, lambda: "the command")
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        with doors.client() as client:
            client.lock("jobs/guarded").acquire(timeout=LONG_LEASE_S / 2).release()
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def test_a_local_cluster_makes_certificates_checks_rights_and_lives_on_after_sighup(tmp_path: Path) -> None:
    acl = tmp_path / "acl.toml"
    acl.write_text(ROLES.replace('"test"', '"dev"'))
    first = ports_in_a_row(3)[0]
    with running(
        *("up", "--nodes", "2", "--port", str(first), "--no-grpc", "--data-dir", str(tmp_path / "data")),
        *("--tls", "--auth", "enforcing", "--acl-file", str(acl)),
    ) as up:
        up.wait_for("2 nodes ready")
        exports = dict(re.findall(r"export (LOCKRING_\w+)=(\S+)", up.text))
        assert set(exports) == {"LOCKRING_SERVER", "LOCKRING_CA", "LOCKRING_CERT", "LOCKRING_KEY"}

        def status() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "lockring", "status"],
                env={**os.environ, **exports},
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )

        done = status()
        assert "rights are enforcing" in done.stdout + done.stderr, done
        up.popen.send_signal(signal.SIGHUP)
        victim = children_of(up.popen.pid)[-1]
        os.kill(victim, signal.SIGKILL)
        up.wait_for("was killed by SIGKILL; restarting it")
        eventually(lambda: status().returncode == 0, lambda: up.text)


# ----------------------------------------------------------------------- changes


def test_rights_that_are_taken_away_end_within_moments_and_those_of_others_stay(
    doors: Doors, tmp_path: Path
) -> None:
    file = tmp_path / "web-1.token"
    file.write_text(doors.token)
    with doors.client("nobody", token_file=file) as client, doors.client("worker") as other:
        kept = other.lock("jobs/kept").acquire(timeout=PATIENCE_S)
        client.lock("jobs/e").acquire(timeout=PATIENCE_S).release()
        try:
            doors.allow(with_token=False)

            def is_refused() -> bool:
                try:
                    client.lock("jobs/e").acquire(timeout=PATIENCE_S).release()
                except (Denied, Unauthenticated):
                    return True
                return False

            eventually(is_refused, lambda: "a refusal")
            kept.check()
            other.lock("jobs/f").acquire(timeout=PATIENCE_S).release()
        finally:
            doors.allow()
        kept.release()


def test_a_client_whose_certificate_ends_comes_back_with_the_next_one_and_loses_no_lock(doors: Doors) -> None:
    assert doors.cluster.certificates is not None
    directory = doors.cluster.certificates.directory
    begun = datetime.now(UTC) - timedelta(days=30) + timedelta(seconds=BRIEF_S)
    CertMaker(directory, replace=True, now=begun).client("brief", days=30)

    def connected() -> list[str]:
        return [
            each["server"] for each in doors.audit() if (each["act"], each.get("who")) == ("connect", "brief")
        ]

    with doors.client("brief") as client:
        grant = client.lock("jobs/brief").acquire(timeout=PATIENCE_S)
        CertMaker(directory, replace=True).client("brief")
        before = eventually(connected, lambda: "a record of the connection")
        node = doors.cluster.primary_of("jobs/brief")
        eventually(
            lambda: connected().count(node) > before.count(node), lambda: f"another connection than {before}"
        )
        assert "certificate brief has expired" in doors.cluster.log_of(node)
        assert grant.verify(timeout=PATIENCE_S)
        grant.release()


def test_a_file_with_a_mistake_changes_nothing_and_is_in_the_audit_log(doors: Doors) -> None:
    write(doors.directory / "acl.toml", "[[role]")
    try:

        def failed() -> set[str]:
            return {
                each["server"]
                for each in doors.audit()
                if (each["act"], each["outcome"]) == ("reload", "failed")
            }

        eventually(lambda: len(failed()) == 4, lambda: f"a record of each server, not {failed()}")
        with doors.client("worker") as client:
            client.lock("jobs/g").acquire(timeout=PATIENCE_S).release()
    finally:
        doors.allow()


def test_a_node_that_dies_is_replaced_and_sessions_stay_those_of_their_owners(doors: Doors) -> None:
    cluster = doors.cluster
    with doors.client("worker") as owner:
        name = a_lock_of(doors, lambda primary: primary == "N3")
        grant = owner.lock(name).acquire(timeout=PATIENCE_S)
        cluster.kill("N3")
        eventually(lambda: cluster.primary_of(name) not in ("", "N3"), cluster.logs)
        assert grant.verify(timeout=PATIENCE_S)  # the new primary waits for the lease of the dead one
        grant.release()
        with doors.client() as admin:
            admin.lock(name).acquire(timeout=PATIENCE_S).release()
    cluster.restart("N3")
    cluster.wait_until_stable()
