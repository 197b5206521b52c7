"""Real servers at an address that others could reach, in a network namespace: refused, or open on purpose."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.security.certs import CertMaker
from tests.cluster.running import Running, running

HOST = "10.98.0.1"


@pytest.fixture
def space() -> Iterator[tuple[str, ...]]:
    """The start of a command line that runs a command in a namespace with one address that is not loopback."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and `ip`")
    name = f"lockring-insecure-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(made.stderr.strip())
    try:
        for words in (["link", "set", "lo", "up"], ["address", "add", f"{HOST}/32", "dev", "lo"]):
            subprocess.run(["ip", "-n", name, *words], check=True)
        yield ("ip", "netns", "exec", name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_server_at_an_address_of_a_namespace_is_refused_unless_it_is_told_to_be_open(
    space: tuple[str, ...], tmp_path: Path
) -> None:
    serve = (
        *("serve", "--listen", f"{HOST}:9501", "--coordinator-listen", f"{HOST}:9500"),
        *("--data-dir", str(tmp_path / "data")),
    )
    refused = Running(*serve, within=space)
    assert refused.wait() == 64
    (line,) = refused.lines
    assert f"--listen {HOST}:9501 and --coordinator-listen {HOST}:9500 and --grpc-listen {HOST}:9601" in line
    assert not (tmp_path / "data").exists()
    with running(*serve, "--insecure", within=space) as process:
        for name in ("coordinator", "node-1"):
            process.wait_for(
                f"other machines can reach {name}, as --insecure says: any process may do everything"
            )
        process.wait_for("clients reach it with")
        status = Running("status", "--server", f"{HOST}:9501", within=space)
        status.wait()
        assert "which prove nothing (--insecure): node-1, the coordinator" in status.text
        told = Running("status", "--server", f"{HOST}:9501", "--json", within=space)
        told.wait()
        found = json.loads(told.text)
        assert found["coordinator_insecure"] is True
        assert [each["insecure"] for each in found["members"]] == [True]


def test_a_local_cluster_with_certificates_of_its_own_starts_there_and_demands_them(
    space: tuple[str, ...], tmp_path: Path
) -> None:
    directory = tmp_path / "a place"
    with running(
        *("up", "--host", HOST, "--nodes", "2", "--tls", "--data-dir", str(directory)), within=space
    ) as up:
        up.wait_for("2 nodes ready")
        assert "--insecure" not in up.text
        exports = [shlex.split(line)[1] for line in up.lines if line.startswith("    export ")]
        assert {each.partition("=")[0] for each in exports} == {
            "LOCKRING_SERVER", "LOCKRING_CA", "LOCKRING_CERT", "LOCKRING_KEY",
        }  # fmt: skip
        bare = [each for each in exports if not each.startswith(("LOCKRING_CERT", "LOCKRING_KEY"))]
        for given, code in ((exports, 0), (bare, 77)):
            locked = Running("lock", "x", "--", "true", within=(*space, "env", *given))
            assert locked.wait() == code, locked.text


def test_a_server_with_certificates_starts_there_and_is_not_open(
    space: tuple[str, ...], tmp_path: Path
) -> None:
    maker = CertMaker(tmp_path)
    maker.authorities()
    server, node, client = maker.server([HOST]), maker.node("node-1"), maker.client("test")
    tls = {"cert": server.cert, "key": server.key, "ca": tmp_path / "ca.pem"}
    peers = {"cert": node.cert, "key": node.key, "ca": tmp_path / "peer-ca.pem"}
    flags = [part for key, path in tls.items() for part in (f"--tls-{key}", str(path))]
    flags += [part for key, path in peers.items() for part in (f"--peer-tls-{key}", str(path))]
    mine = ("--ca", str(tmp_path / "ca.pem"), "--cert", str(client.cert), "--key", str(client.key))
    ports = ("--listen", f"{HOST}:9501", "--coordinator-listen", f"{HOST}:9500")
    with running("serve", *ports, *flags, "--in-memory", "--new-cluster", within=space) as process:
        process.wait_for("clients reach it with")
        locked = Running(
            "lock", "--server", f"lockrings://{HOST}:9501", *mine, "x", "--", "true", within=space
        )
        assert locked.wait() == 0, locked.text
        assert "--insecure" not in process.text
