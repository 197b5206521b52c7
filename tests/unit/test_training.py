"""The training run of the compiled build, which runs where only the packages of `compiled/requirements.txt` are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

_WITHOUT_SERVER_PACKAGES = """
import sys
for name in ("starlette", "uvicorn", "prometheus_client", "jinja2", "grpc", "click", "uvloop"):
    sys.modules[name] = None
import tempfile
import lockring
from compiled import train
with tempfile.TemporaryDirectory() as directory, train._cluster(2, directory) as addresses:
    with lockring.Client(addresses, connect_timeout=30) as client, client.lock("trained"):
        print("held")
"""


def test_the_servers_of_the_training_run_need_no_package_but_those_of_the_build() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_SERVER_PACKAGES],
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
        capture_output=True,
        text=True,
    )

    assert ran.stdout == "held\n", ran.stderr
