"""Installs Prometheus, which the tests of alerts start: `.venv/bin/python -m tests.monitoring.install`.

Only the programs are wanted: the package's service is neither started nor enabled.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Final

from bench.install import Need, install_missing

PROMETHEUS: Final = Need(
    server="Prometheus",
    is_there=lambda: shutil.which("prometheus") is not None and shutil.which("promtool") is not None,
    packages=("prometheus",),
    services=("prometheus",),
    version=lambda: subprocess.run(
        ["prometheus", "--version"], capture_output=True, text=True, check=False
    ).stdout.split()[2],
    libraries={},
)


def main() -> int:
    """Install what is missing, and return the exit code."""
    why_not = install_missing([PROMETHEUS], may_install=True, say=print)
    if PROMETHEUS.is_there():
        return 0
    print(
        f"the tests of alerts need Prometheus, which is not installed: {why_not or 'apt-get did not bring it'}."
        " Try: apt-get install prometheus",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
