"""The package without its extras is a client: small, without servers or a command line, and complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lockring.testing import LocalCluster
from tests.cluster.test_examples import ADDRESS, FENCE, ROOT
from tests.processes import PATIENCE_S

pytestmark = [pytest.mark.cluster]

SIZE_BYTES_MAX = 15 * 1000 * 1000
PROGRAMS = [
    pytest.param(code, id=f"README-{number}")
    for number, code in enumerate(FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8")), start=1)
    if ADDRESS.search(code)
]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that `pip install .` was run in, without pip itself, and without a compiler."""
    folder = tmp_path_factory.mktemp("light")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    uv = Path(sys.executable).parent / "uv"
    pins = ROOT / "requirements" / "constraints.txt"
    command: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--python",
        folder / "bin" / "python",
        "--constraints",
        pins,
        ROOT,
    ]
    environ = os.environ | {"PATH": "", "LOCKRING_COMPILE": ""}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_client_alone_brings_msgspec_and_nothing_else(light: Path) -> None:
    packages = {path.name.split("-")[0] for path in light.glob("lib/*/site-packages/*.dist-info")}
    assert packages == {"lockring", "msgspec"}


def test_the_client_alone_is_interpreted(light: Path) -> None:
    code = "import lockring.build_kind; print(lockring.build_kind.BUILD)"
    done = subprocess.run([light / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "interpreted\n"


def test_the_client_alone_is_small(light: Path) -> None:
    size_bytes = sum(path.stat().st_size for path in light.glob("lib/*/site-packages/**/*") if path.is_file())
    assert size_bytes < SIZE_BYTES_MAX


@pytest.mark.parametrize("code", PROGRAMS)
def test_programs_of_the_readme_run_with_the_client_alone(
    code: str, light: Path, steady: LocalCluster, tmp_path: Path
) -> None:
    done = subprocess.run(
        [light / "bin" / "python", "-c", ADDRESS.sub(repr(steady.servers), code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_without_its_packages_says_which_extra_to_install(light: Path) -> None:
    done = subprocess.run(
        [light / "bin" / "lockring", "status"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 78
    assert "lockring[cli]" in done.stderr
    assert done.stderr.count("\n") == 1
