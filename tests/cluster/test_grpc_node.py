"""The example client for Node.js: it waits, holds, watches and releases over the death of the lock's primary."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from lockring.testing import LocalCluster
from tests.cluster.grpc_calls import Caller
from tests.processes import eventually
from tests.unit.house.rules import ROOT

EXAMPLE = ROOT / "examples" / "node"
PAGE = ROOT / "docs" / "grpc.md"
PAGES = [PAGE, ROOT / "README.md"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None,
        reason="this machine has no Node.js, or no npm: the example for it cannot be run",
    ),
]


@pytest.fixture(scope="session")
def installed() -> Path:
    """The example with its packages, just those of its lock file; installed once, and again when that changes."""
    mark = EXAMPLE / "node_modules" / ".package-lock.json"
    with (ROOT / ".venv" / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes run tests
        if not mark.exists() or mark.stat().st_mtime < (EXAMPLE / "package-lock.json").stat().st_mtime:
            command = ["npm", "ci", "--ignore-scripts", "--prefer-offline"]
            done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=100)
            assert done.returncode == 0, done.stdout + done.stderr
            mark.touch()
    return EXAMPLE


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(
        nodes=3,
        coordinator_lease_s=30.0,
        stabilization_s=0.3,
        grpc=True,
    ) as cluster:
        yield cluster


class Program:
    """A running program that tells its events as lines of JSON."""

    def __init__(self, directory: Path, *command: str, output: Path, **environ: str) -> None:
        self._output = output
        with output.open("w") as file:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | environ,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return its reports of this kind."""
        lines = self._output.read_text().splitlines()
        assert all(line.startswith("{") for line in lines), "\n".join(lines)
        return [event for line in lines if (event := json.loads(line))["event"] == kind]

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self._process.wait(timeout=60)


def test_the_example_keeps_its_lock_over_the_death_of_the_primary(
    installed: Path, cluster: LocalCluster, tmp_path: Path
) -> None:
    name = "nightly"
    primary = cluster.primary_of(name)
    others = [node for node in cluster.nodes if node != primary]
    # The first of the two talks to the primary itself, and so loses its own node with it.
    nodes = [cluster.grpc_address_of(node) for node in (primary, *others)]
    first = Program(installed, "node", "example.js", ",".join(nodes), name, output=tmp_path / "first")
    with first, Caller(cluster.grpc_address_of(others[0])) as caller:
        (acquired,) = eventually(lambda: first.events("acquired"))
        second = Program(
            installed, "node", "example.js", ",".join(reversed(nodes)), name, output=tmp_path / "second"
        )
        with second:
            eventually(lambda: caller.waiters(name) == ["example.js"])
            cluster.kill(primary)
            eventually(lambda: cluster.primary_of(name) not in ("", primary))
            eventually(lambda: caller.waiters(name) == ["example.js"])
            assert caller.find(name).generation == acquired["generation"]

            def renewed() -> bool:
                first.say("")
                told = first.events("held")
                return bool(told and told[-1]["remaining"] > 7_000)

            eventually(renewed)
            assert not first.events("lost")
            assert not second.events("acquired")
            first.say("release")
            assert first.wait() == 0
            assert first.events("released") == [{"event": "released", "released": True}]
            (after,) = eventually(lambda: second.events("acquired"))
            assert after["generation"] > acquired["generation"]
            eventually(lambda: any(state["gap"] for state in second.events("state")))
            eventually(lambda: second.events("state")[-1]["waiters"] == 0)
            second.say("release")
            assert second.wait() == 0
        assert not caller.find(name).held


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_program_of_the_page_runs(
    installed: Path, cluster: LocalCluster, tmp_path: Path, page: Path
) -> None:
    (code,) = re.findall(r"^```js\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    nodes = [f"'{cluster.grpc_address_of(node)}'" for node in cluster.nodes]
    code, count = re.subn(r"\['127\.0\.0\.1:9601'.*?\]", f"[{', '.join(nodes)}]", code)
    assert count == 1
    program = tmp_path / "program.js"
    program.write_text(code.replace("./lockring.js", str(installed / "lockring.js")))
    done = subprocess.run(["node", str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"token \d+\n", done.stdout)


def test_the_example_may_be_taken_over_along_with_the_folder_proto(installed: Path, tmp_path: Path) -> None:
    for name in ("lockring.js", "node_modules"):
        (tmp_path / name).symlink_to(installed / name)
    load = ["node", "--preserve-symlinks", "-e", "require('./lockring.js')"]
    without = subprocess.run(load, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert without.returncode != 0
    assert "copy lockring's folder proto beside" in without.stderr
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    done = subprocess.run(load, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_python_program_of_the_page_runs(cluster: LocalCluster, tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert code.count('"127.0.0.1:9601"') == 1
    program = tmp_path / "program.py"
    program.write_text(code.replace("127.0.0.1:9601", cluster.grpc_address_of("N2")))
    python = str(ROOT / ".venv" / "bin" / "python")
    done = subprocess.run([python, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"token \d+, for another \d+ ms\nheld by page\n", done.stdout)
