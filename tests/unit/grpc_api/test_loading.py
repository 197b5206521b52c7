"""A process that does not serve gRPC does not load it: loading takes a tenth of a second, and memory."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "modules",
    [
        "lockring, lockring.aio",
        "lockring.cli.app, lockring.cli.lock.command",
        "lockring.server.node, lockring.server.local.up",
    ],
)
def test_grpc_is_not_loaded_by(modules: str) -> None:
    code = f"import sys, {modules}; print(sorted(each for each in sys.modules if each.split('.')[0] in ('grpc', 'google', 'h2')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_server_of_grpc_needs_no_grpcio() -> None:
    code = "import sys, lockring.grpc_api.server; print(sorted(each for each in sys.modules if each.startswith('grpc')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
