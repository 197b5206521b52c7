"""Certificates, keys, authorities and rights are replaced while a cluster works, twice: nothing is lost, nothing fails.

The files lie as Kubernetes mounts them: each is a symbolic link into a directory, which is a link itself and gets
swapped.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

import lockring
from lockring.client.arguments import ServerList
from lockring.client.tls import ClientFiles, tls_of
from lockring.client.tls_dial import dial_with
from lockring.errors import Denied, LockringError, Unauthenticated
from lockring.net.oneshot import ask_status
from lockring.security.certs import CertMaker
from lockring.server.access_settings import AccessSettings
from lockring.testing import COORDINATOR, LocalCluster
from tests.cluster.conftest import CALM
from tests.processes import PATIENCE_S, eventually, see_renewed

pytestmark = [pytest.mark.timeout(600)]

HOST: Final = "127.0.0.1"
SERVERS: Final = ("N1", "N2", "N3", COORDINATOR)
CLIENTS: Final = ("test", "worker", "leaver-1", "leaver-2")
AUTHORITIES: Final = ("ca.pem", "peer-ca.pem")
DATA: Final = "..data"
TTL_S: Final = 20


class Mount:
    """The files of all servers and clients, in one directory that is swapped.

    Args:
        directory: where servers and clients look for them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._edition = 0
        self._maker: CertMaker

    def fill(self, *, roles: dict[str, list[str]]) -> None:
        """Make the first edition: all certificates, from new authorities, and the ACL file."""
        self._maker = self._issued()
        new = self._next()
        for path in self._issued_files():
            shutil.copy(path, new)
        self.write_rights(new, roles)
        for path in new.iterdir():
            (self._directory / path.name).unlink(missing_ok=True)
            (self._directory / path.name).symlink_to(f"{DATA}/{path.name}")
        self._swap(new)

    def replace_certificates(self, see_in_use: Callable[[], None]) -> Path:
        """Replace authorities, certificates and keys, so that both sides trust each other at each moment.

        Args:
            see_in_use: waits until all servers use what is there.

        Returns:
            The new authority of clients.
        """
        old = {name: (self._data / name).read_bytes() for name in AUTHORITIES}
        self._maker = self._issued()
        issued = {path.name: path.read_bytes() for path in self._issued_files()}
        both = {name: old[name] + issued[name] for name in AUTHORITIES}
        for changed in (both, issued | both, issued):
            new = self._next()
            for path in self._data.iterdir():
                shutil.copy(path, new)
            for name, content in changed.items():
                (new / name).write_bytes(content)
            self._swap(new)
            see_in_use()
        return self._directory / "ca.pem"

    def write_half(self, name: str) -> Callable[[], None]:
        """Write half of a file in its place, and return what writes it whole again."""
        path = self._data / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        return lambda: void(path.write_bytes(whole))

    def replace_rights(self, roles: dict[str, list[str]]) -> None:
        """Replace the ACL file alone."""
        new = self._next()
        for path in self._data.iterdir():
            shutil.copy(path, new)
        self.write_rights(new, roles)
        self._swap(new)

    def write_rights(self, directory: Path, roles: dict[str, list[str]]) -> None:
        """Write the ACL file: a role for each of these certificates."""
        parts = [
            f'[[role]]\nname = "{name}"\nrules = {rules!r}\n[[certificate]]\nsan = "{name}"\nroles = ["{name}"]\n'
            for name, rules in roles.items()
        ]
        (directory / "acl.toml").write_text("\n".join(parts))

    def client(self, name: str) -> dict[str, str]:
        """The arguments of a client."""
        stem = self._directory / f"client-{name}"
        return {"ca": str(self._directory / "ca.pem"), "cert": f"{stem}.pem", "key": f"{stem}-key.pem"}

    @property
    def _data(self) -> Path:
        return (self._directory / DATA).resolve()

    def _issued(self) -> CertMaker:
        maker = CertMaker(self._directory / "issued", replace=True)
        maker.authorities()
        for name in SERVERS:
            maker.server([HOST, "localhost"], stem=f"server-{name}")
            maker.node(name)
        for name in CLIENTS:
            maker.client(name)
        return maker

    def _issued_files(self) -> list[Path]:
        """Return all that was issued but the keys of authorities, which lie elsewhere."""
        keys = {"ca-key.pem", "peer-ca-key.pem"}
        return [path for path in sorted((self._directory / "issued").glob("*.pem")) if path.name not in keys]

    def _next(self) -> Path:
        self._edition += 1
        made = self._directory / f"..{self._edition}"
        made.mkdir()
        return made

    def _swap(self, new: Path) -> None:
        link = self._directory / "..new"
        link.symlink_to(new.name)
        link.replace(self._directory / DATA)


def void(_: object) -> None:
    """Forget a result."""


class Load:
    """Clients at work: they acquire and release, share, come and go, and watch; what fails is noted.

    Args:
        servers: of the cluster.
        files: what they show.
    """

    def __init__(self, servers: str, files: dict[str, str]) -> None:
        self.rounds: Counter[str] = Counter()
        self.failures: list[str] = []
        self._servers = servers
        self._files = files
        self._over = threading.Event()
        works = (self._locks, self._locks, self._shares, self._shares, self._comes_and_goes, self._watches)
        self._threads = [
            threading.Thread(target=self._until_over, args=(work, number))
            for number, work in enumerate(works)
        ]
        self._watcher = self._threads[-1]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            if thread is not self._watcher:
                thread.join()
        with self._client() as client:  # a watch looks whether it is over when something has changed
            while self._watcher.is_alive():
                client.lock("load/page").acquire(timeout=PATIENCE_S).release()
                self._watcher.join(0.1)

    def see_rounds(self, count: int = 10) -> None:
        """Wait until each kind of client has worked so often again."""
        wanted = {name: self.rounds[name] + count for name in ("locks", "shares", "comes", "watches")}
        eventually(
            lambda: self.failures or all(self.rounds[name] >= least for name, least in wanted.items()),
            lambda: f"{wanted}, not {self.rounds}",
        )
        assert self.failures == []

    def _until_over(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except LockringError as error:
            self.failures.append(f"{work.__name__}: {error!r}")
            self._over.set()

    def _client(self) -> lockring.Client:
        return lockring.Client(self._servers, ttl=TTL_S, **self._files)

    def _locks(self, number: int) -> None:
        with self._client() as client:
            while not self._over.wait(0.03):
                for slot in range(3):
                    client.lock(f"load/{number}/{slot}").acquire(timeout=PATIENCE_S).release()
                self.rounds["locks"] += 1

    def _shares(self, number: int) -> None:
        with self._client() as client:
            page = client.rwlock("load/page")
            while not self._over.wait(0.03):
                page.read().acquire(timeout=PATIENCE_S).release()
                page.write().acquire(timeout=PATIENCE_S).release()
                self.rounds["shares"] += 1

    def _comes_and_goes(self, number: int) -> None:
        while not self._over.wait(0.05):
            with self._client() as client:
                client.lock(f"load/{number}").acquire(timeout=PATIENCE_S).release()
            self.rounds["comes"] += 1

    def _watches(self, number: int) -> None:
        with self._client() as client:
            for update in client.watch("load/page"):
                if update.gap and self.rounds["watches"]:
                    self.failures.append("a watch may have missed events")
                self.rounds["watches"] += 1
                if self._over.is_set():
                    return


ROLES: Final = {
    "test": ["admin"],
    "worker": ["acquire load/*", "acquire held/*", "read *", "watch load/*"],
    "leaver-1": ["acquire load/*"],
    "leaver-2": ["acquire load/*"],
}
"""The rights at first, by certificate."""


def test_files_and_rights_are_replaced_twice_under_load(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    access = AccessSettings(
        auth="enforcing", acl_file=str(certs / "acl.toml"), audit_log=str(tmp_path / "audit.log")
    )
    cluster = LocalCluster(nodes=3, tls=True, directory=tmp_path, access=access, **CALM)
    mount = Mount(certs)
    mount.fill(roles=ROLES)
    with cluster, ExitStack() as stack:
        worker = stack.enter_context(lockring.Client(cluster.servers, ttl=TTL_S, **mount.client("worker")))
        grants = [worker.lock(f"held/{number}").acquire(timeout=PATIENCE_S) for number in range(30)]
        grants += [worker.rwlock("held/page").read().acquire(timeout=PATIENCE_S) for _ in range(2)]
        tokens = [grant.fencing_token for grant in grants]
        load = stack.enter_context(Load(cluster.servers, mount.client("worker")))
        load.see_rounds()
        roles = dict(ROLES)
        for number, tells in ((1, False), (2, True)):
            drill = Drill(cluster, mount, tells=tells)
            drill.replace_halves()
            load.see_rounds()
            drill.replace_certificates()
            load.see_rounds()
            see_renewed(grants[0])
            leaver = stack.enter_context(
                lockring.Client(cluster.servers, ttl=TTL_S, **mount.client(f"leaver-{number}"))
            )
            leaver.lock(f"load/leaver-{number}").acquire(timeout=PATIENCE_S).release()
            with pytest.raises(Denied, match=f'no rule "acquire late-{number}/a"'):
                worker.lock(f"late-{number}/a").acquire()
            del roles[f"leaver-{number}"]
            roles["worker"] = [*roles["worker"], f"acquire late-{number}/*"]
            took_s = drill.replace_rights(roles)
            # With its next request each client has what the file gives it now.
            worker.lock(f"late-{number}/a").acquire(timeout=PATIENCE_S).release()
            with pytest.raises(Denied):
                leaver.lock(f"load/leaver-{number}").acquire(timeout=PATIENCE_S)
            print(f"round {number}: new rights were in force {took_s:.3f} s after the files had changed")
            load.see_rounds()
        see_renewed(grants[0])
        for grant, token in zip(grants, tokens, strict=True):
            assert grant.verify()
            assert grant.fencing_token == token
            grant.release()
    for name in cluster.nodes:
        assert "lost the connection" not in cluster.log_of(name), "connections keep what they began with"


class Drill:
    """Replaces files, and waits until all servers use them: by themselves, or at a signal.

    Args:
        cluster: the servers.
        mount: their files.
        tells: whether they get one.
    """

    def __init__(self, cluster: LocalCluster, mount: Mount, *, tells: bool) -> None:
        self._cluster = cluster
        self._mount = mount
        self._tells = tells
        self._logged = {name: len(cluster.log_of(name)) for name in SERVERS}

    def replace_halves(self) -> None:
        """Write half of a key of each server; it is not used, and named in the log."""
        for side, stem in (("clients", "server"), ("servers", "node")):
            for name in SERVERS:
                self._forget_log(name)
                mend = self._mount.write_half(f"{stem}-{name}-key.pem")
                self._tell(name)
                self._see_logged(name, f"the TLS files for {side} have changed and are not used yet")
                mend()

    def replace_certificates(self) -> None:
        """Replace authorities, certificates and keys. In the end no server accepts, or shows, a former one."""
        former = {name: Path(path).read_bytes() for name, path in self._mount.client("test").items()}
        for name in SERVERS:
            self._forget_log(name)
        ca = self._mount.replace_certificates(self._see_in_use)
        former_files = {}
        for name, content in former.items():
            path = ca.parent / f"former-{name}"
            path.write_bytes(content)
            former_files[name] = str(path)
        for name in SERVERS:
            address = self._cluster.address_of(name)
            eventually(functools.partial(is_refused, address, {**former_files, "ca": str(ca)}))
            assert is_let_in(address, self._mount.client("test"))
            assert not is_let_in(address, {**self._mount.client("test"), "ca": former_files["ca"]})

    def replace_rights(self, roles: dict[str, list[str]]) -> float:
        """Replace the ACL file, and return how long it took until all servers had read it, in seconds."""
        audit = self._cluster.directory / "audit.log"
        begun_at, begun_s = audit.stat().st_size, time.monotonic()
        self._mount.replace_rights(roles)
        for name in SERVERS:
            self._tell(name)

        def all_have() -> bool:
            lines = audit.read_bytes()[begun_at:].decode().splitlines()
            read = {
                line.partition('"server":"')[2].partition('"')[0]
                for line in lines
                if '"act":"reload"' in line
            }
            return read >= set(SERVERS)

        eventually(all_have, lambda: "a record of the new ACL file by each server")
        return time.monotonic() - begun_s

    def _see_in_use(self) -> None:
        for name in SERVERS:
            self._tell(name)
        for name in SERVERS:
            eventually(
                functools.partial(self._is_in_use, name), functools.partial("new files at {}".format, name)
            )

    def _is_in_use(self, name: str) -> bool:
        """Whether a server lets in, and shows, what the files say now. Its log says when it has read them."""
        text = self._cluster.log_of(name)[self._logged[name] :]
        if (
            "new TLS files for clients are in use" not in text
            or "new TLS files for servers are in use" not in text
        ):
            return False
        self._forget_log(name)
        return True

    def _see_logged(self, name: str, text: str) -> None:
        eventually(
            lambda: text in self._cluster.log_of(name)[self._logged[name] :],
            lambda: f"{text!r} in\n{self._cluster.log_of(name)}",
        )

    def _forget_log(self, name: str) -> None:
        self._logged[name] = len(self._cluster.log_of(name))

    def _tell(self, name: str) -> None:
        if self._tells:
            os.kill(self._cluster.pid_of(name), signal.SIGHUP)


def is_let_in(address: str, files: dict[str, Any]) -> bool:
    try:
        ask_status(
            address, timeout_s=PATIENCE_S, dial=dial_with(tls_of(ServerList([]), ClientFiles(**files)))
        )
    except LockringError:
        return False
    return True


def is_refused(address: str, files: dict[str, Any]) -> bool:
    try:
        ask_status(
            address, timeout_s=PATIENCE_S, dial=dial_with(tls_of(ServerList([]), ClientFiles(**files)))
        )
    except Unauthenticated:
        return True
    return False
