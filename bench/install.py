"""The peers that can be measured here: installed ones, those from Debian's packages, and the reasons against others.

Only the servers' programs are wanted. The packages' services are neither started nor enabled.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.builds import build_of, compiled_python, lack_of_compiled, lack_of_interpreted
from bench.peers import OURS, PEERS
from bench.peers.programs import ZOOKEEPER_JAR, postgres_programs

_POLICY: Final = Path("/usr/sbin/policy-rc.d")
_INSTALL_S_MAX: Final = 600


class Need(NamedTuple):
    """The requirements for measuring a peer.

    Attributes:
        server: name of its server.
        is_there: whether it is installed.
        packages: Debian's packages for it.
        services: the services that these would start.
        version: returns the server's version.
        libraries: Python's libraries, by import name, with their distributions.
    """

    server: str
    is_there: Callable[[], bool]
    packages: tuple[str, ...]
    services: tuple[str, ...]
    version: Callable[[], str]
    libraries: dict[str, str]


def _zookeeper_is_there() -> bool:
    return shutil.which("java") is not None and ZOOKEEPER_JAR.exists()


def _zookeeper_version() -> str:
    found = sorted(ZOOKEEPER_JAR.parent.glob("zookeeper-[0-9]*.jar"))
    return found[-1].stem.removeprefix("zookeeper-") if found else "of unknown version"


def _postgres_version() -> str:
    where = postgres_programs()
    return "" if where is None else _first_line(str(where / "postgres"), "--version").split()[2]


NEEDS: Final[dict[str, Need]] = {
    "redis": Need(
        server="Redis",
        is_there=lambda: shutil.which("redis-server") is not None,
        packages=("redis-server",),
        services=("redis-server",),
        version=lambda: _first_line("redis-server", "--version").split("v=")[1].split()[0],
        libraries={"redis": "redis", "hiredis": "hiredis"},
    ),
    "postgres": Need(
        server="PostgreSQL",
        is_there=lambda: postgres_programs() is not None,
        packages=("postgresql",),
        services=("postgresql",),
        version=_postgres_version,
        libraries={"psycopg": "psycopg", "psycopg_binary": "psycopg-binary"},
    ),
    "zookeeper": Need(
        server="ZooKeeper",
        is_there=_zookeeper_is_there,
        packages=("zookeeper", "default-jre-headless"),
        services=("zookeeper",),
        version=_zookeeper_version,
        libraries={"kazoo": "kazoo"},
    ),
    "etcd": Need(
        server="etcd",
        is_there=lambda: shutil.which("etcd") is not None,
        packages=("etcd-server",),
        services=("etcd",),
        version=lambda: _first_line("etcd", "--version").split(":")[1].strip(),
        libraries={"etcd3gw": "etcd3gw", "aetcd": "aetcd"},
    ),
}
NEEDS["replicated_redis"] = NEEDS["redis"]
"""The requirements, by module of the peer."""


class Ready(NamedTuple):
    """The outcome of the preparation.

    Attributes:
        peers: the peers that can be measured, in the order of `PEERS`.
        left_out: a sentence on each of the others.
        versions: versions of the servers and libraries that take part.
    """

    peers: tuple[str, ...]
    left_out: list[str]
    versions: dict[str, str]


def prepare(wanted: Sequence[str], *, may_install: bool, say: Callable[[str], None]) -> Ready:
    """Install missing servers, if possible and allowed, and return the peers that can be measured.

    Args:
        wanted: the peers in question.
        may_install: whether Debian's packages may be installed.
        say: receives a sentence on each step.
    """
    needs = {PEERS[peer].module for peer in wanted if peer not in OURS}
    why_not = install_missing(
        [NEEDS[each] for each in NEEDS if each in needs], may_install=may_install, say=say
    )
    left_out = {}
    for module in needs:
        if sentence := lack(NEEDS[module], why_not):
            left_out[module] = sentence
    peers = tuple(peer for peer in PEERS if peer in wanted and PEERS[peer].module not in left_out)
    builds = {
        is_compiled: reason()
        if any(PEERS[peer].is_compiled == is_compiled for peer in peers if peer in OURS)
        else ""
        for is_compiled, reason in ((False, lack_of_interpreted), (True, lack_of_compiled))
    }
    peers = tuple(peer for peer in peers if peer not in OURS or not builds[PEERS[peer].is_compiled])
    sentences = dict.fromkeys([*left_out.values(), *filter(None, builds.values())])
    return Ready(peers, list(sentences), _versions(peers))


def install_missing(needs: Iterable[Need], *, may_install: bool, say: Callable[[str], None]) -> str:
    """Install the servers that are missing, and return the reason if that failed, as the end of a sentence.

    Args:
        needs: the servers in question.
        may_install: whether Debian's packages may be installed.
        say: receives a sentence on each step.
    """
    absent = [need for need in needs if not need.is_there()]
    if not absent:
        return ""
    why_not = obstacle(may_install, os.geteuid(), shutil.which("apt-get"))
    if why_not:
        return why_not
    packages = [package for need in absent for package in need.packages]
    say(f"installing {', '.join(packages)} …")
    return _install(packages, [service for need in absent for service in need.services])


def obstacle(may_install: bool, user_id: int, apt_get: str | None) -> str:
    """Return the reason that rules out any installation, as the end of a sentence; "" for none."""
    if not may_install:
        return "nothing was to be installed"
    if apt_get is None:
        return "there is no apt-get to install it"
    if user_id != 0:
        return "only root can install it"
    return ""


def lack(need: Need, why_not: str) -> str:
    """Return the reason that rules out measuring a peer, as a sentence; "" for none.

    Args:
        need: the peer's requirements.
        why_not: why it could not be installed; "" if that was not tried or has worked.
    """
    if not need.is_there():
        because = why_not or "apt-get did not bring it"
        packages = " ".join(need.packages)
        return f"{need.server}: left out, it is not installed, and {because}. Try: apt-get install {packages}"
    missing = [name for name in need.libraries if importlib.util.find_spec(name) is None]
    if missing:
        return (
            f"{need.server}: left out, {' and '.join(missing)} is not installed. Try: pip install '.[bench]'"
        )
    return ""


def _install(packages: Sequence[str], services: Sequence[str]) -> str:
    """Install packages, and return the reason of a failure, or ""."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def apt_get(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["apt-get", "-q", "-y", *words],
            env=environ,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S_MAX,
            check=False,
        )

    with _nothing_started():
        command = ("install", "--no-install-recommends", *packages)
        done = apt_get(*command)
        if done.returncode:  # the lists may be missing or old
            apt_get("update")
            done = apt_get(*command)
    if shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", *services], capture_output=True, check=False)
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return f"apt-get failed ({lines[-1] if lines else done.returncode})"


@contextlib.contextmanager
def _nothing_started() -> Iterator[None]:
    """Keep packages from starting their services, by Debian's own policy file."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _versions(peers: Iterable[str]) -> dict[str, str]:
    versions = {
        "lockring": importlib.metadata.version("lockring"),
        "uvloop": importlib.metadata.version("uvloop"),
    }
    if any(PEERS[peer].is_compiled for peer in peers):
        versions["lockring, compiled"] = f"{build_of(compiled_python()).compiled} modules"
    for module in dict.fromkeys(PEERS[peer].module for peer in peers if peer not in OURS):
        need = NEEDS[module]
        versions[need.server] = need.version()
        for distribution in need.libraries.values():
            versions[distribution] = importlib.metadata.version(distribution)
    return versions


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [""])[0]
