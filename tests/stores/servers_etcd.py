"""Real etcd clusters for the tests of stores: each in a directory of its own, on loopback, and killed at the end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from lockring.addresses import split_address
from lockring.errors import StoreError
from lockring.server.local.children import free_ports
from lockring.store.etcd.calls import RANGE, EtcdCalls, Method
from lockring.store.etcd.etcd_pb2 import RangeRequest
from lockring.store.etcd.place import parse
from lockring.testing import Place
from tests.stores.servers import HOST, STARTED_S_MAX, ServerFailed, wait_until_stopped


class EtcdTls:
    """Files for TLS: an authority, a certificate for the servers, and one for clients."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, _ = self._make("ca", "-x509", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self.cert, self.key = self.issue("server", f"IP:{HOST}")

    def issue(self, name: str, subject: str = "") -> tuple[Path, Path]:
        """Make a certificate for a name, and return it with its key."""
        alternative = ("-addext", f"subjectAltName={subject}") if subject else ()
        authority = ("-CA", self.ca, "-CAkey", self.directory / "ca.key")
        return self._make(
            name, "-x509", *authority, "-addext", "basicConstraints=critical,CA:FALSE", *alternative
        )

    def _make(self, name: str, *arguments: object) -> tuple[Path, Path]:
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        output = ("-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", cert)
        words = ["openssl", "req", *curve, *output, *arguments]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode:
            raise ServerFailed(f"openssl req: {done.stderr.strip()}")
        return cert, key


class EtcdServer:
    """An etcd cluster, whose members may be killed, frozen and started again on the same data.

    Args:
        directory: for the members' data and logs.
        members: how many.
        tls: files for clients' connections, None for connections in the clear.
        asks_for_certificates: whether clients need one.
        flags: further flags for each member.
        places: the members' addresses; none for free ports of the loopback interface.
    """

    def __init__(
        self,
        directory: Path,
        members: int = 1,
        *,
        tls: EtcdTls | None = None,
        asks_for_certificates: bool = False,
        flags: Iterable[str] = (),
        places: Sequence[Place] = (),
    ) -> None:
        if shutil.which("etcd") is None:
            raise ServerFailed("there is no etcd server; `make stores` installs it")
        self.directory = directory
        self._scheme = "http" if tls is None else "https"
        self._flags = list(flags)
        if tls is not None:
            self._flags += ["--cert-file", str(tls.cert), "--key-file", str(tls.key)]
        if tls is not None and asks_for_certificates:
            self._flags += ["--client-cert-auth", "--trusted-ca-file", str(tls.ca)]
        self._places = list(places) or [Place(f"{HOST}:{port}") for port in free_ports(HOST, members)]
        assert len(self._places) == members, "a place for each member"
        self._peers = [
            f"http://{split_address(place.listen)[0]}:{port}"
            for place, port in zip(self._places, free_ports(HOST, members), strict=True)
        ]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for member in range(members):
            self.start(member)
        self.wait()

    @property
    def ports(self) -> list[int]:
        """The members' ports for clients."""
        return [split_address(place.public)[1] for place in self._places]

    @property
    def members(self) -> range:
        """The numbers of the members."""
        return range(len(self._places))

    @property
    def pids(self) -> dict[int, int]:
        """The process ids of the members that are running."""
        return {member: each.pid for member, each in self._processes.items() if each.poll() is None}

    def url(
        self, name: str = "lockring", *, ports: Iterable[int] = (), user: str = "", more: str = ""
    ) -> str:
        """The URL of a store in it."""
        hosts = ",".join([f"{HOST}:{port}" for port in ports] or [place.public for place in self._places])
        scheme = "etcd" if self._scheme == "http" else "etcds"
        return f"{scheme}://{user}{'@' if user else ''}{hosts}/{name}{more}"

    def start(self, member: int) -> None:
        """Start a member on the data that it has, without waiting for it."""
        name, place, peer = f"m{member}", self._places[member], self._peers[member]
        cluster = ",".join(f"m{number}={each}" for number, each in enumerate(self._peers))
        words = [
            *place.prefix,
            "etcd",
            "--name",
            name,
            "--data-dir",
            str(self.directory / name),
            "--initial-cluster",
            cluster,
        ]
        words += ["--listen-client-urls", f"{self._scheme}://{place.listen}"]
        words += ["--advertise-client-urls", f"{self._scheme}://{place.public}"]
        words += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[member] = subprocess.Popen(
                [*words, *self._flags], stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until the cluster answers."""
        until_s = time.monotonic() + STARTED_S_MAX
        answers = self._health()
        while not answers:
            for member, process in self._processes.items():
                if process.poll() is not None:
                    log = (self.directory / f"m{member}.log").read_text()
                    raise ServerFailed(f"etcd does not start: {log[-2000:]}")
            if time.monotonic() > until_s:
                raise ServerFailed(f"etcd does not answer, see {self.directory}")
            time.sleep(0.05)
            answers = self._health()

    def _health(self) -> bool:
        if self._scheme == "https":  # its answer would need a certificate
            return all(
                b"ready to serve client requests" in log.read_bytes() for log in self.directory.glob("*.log")
            )
        calls = EtcdCalls(parse(self.url()))
        try:
            calls.repeat(RANGE, RangeRequest(key=b"health"), until_s=time.monotonic() + 2)
        except StoreError as error:
            return "user" in str(error)  # it lets in known users only
        finally:
            calls.close()
        return True

    def call(self, method: Method[Any, Any], request: Any, *, user: str = "") -> Any:
        """Make a call to it."""
        calls = EtcdCalls(parse(self.url(user=user)))
        try:
            return calls.repeat(method, request, until_s=time.monotonic() + STARTED_S_MAX)
        finally:
            calls.close()

    def kill(self, *members: int) -> None:
        """Kill some members, or all."""
        for member in members or tuple(self._processes):
            process = self._processes.pop(member, None)
            if process is not None:
                process.kill()
                process.wait()

    def freeze(self, member: int = 0) -> None:
        """Let a member stand still: the kernel goes on taking connections and data."""
        self._processes[member].send_signal(signal.SIGSTOP)
        wait_until_stopped(self._processes[member].pid)

    def thaw(self, member: int = 0) -> None:
        """Let it go on."""
        self._processes[member].send_signal(signal.SIGCONT)


PATIENCE_S: Final = 60
"""Far more than any deadline in these tests, since the machine may be busy."""
