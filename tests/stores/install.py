"""Installs the servers that the tests of stores start: `.venv/bin/python -m tests.stores.install`.

With them comes openssl, which makes certificates.
Only the programs are wanted: the packages' services are neither started nor enabled.
"""

from __future__ import annotations

import shutil
import sys
from typing import Final

try:
    from bench.install import NEEDS, Need, install_missing
except ModuleNotFoundError as error:
    sys.exit(
        f"{error.name} is not installed for this Python: run .venv/bin/python -m tests.stores.install, or make stores"
    )

OPENSSL: Final = Need(
    server="openssl",
    is_there=lambda: shutil.which("openssl") is not None,
    packages=("openssl",),
    services=(),
    version=str,
    libraries={},
)
WANTED: Final = (NEEDS["etcd"], NEEDS["postgres"], OPENSSL)


def main() -> int:
    """Install what is missing, and return the exit code."""
    why_not = install_missing(WANTED, may_install=True, say=print)
    absent = [need for need in WANTED if not need.is_there()]
    for need in absent:
        packages = " ".join(need.packages)
        print(
            f"the tests of stores need {need.server}, which is not installed: {why_not or 'apt-get did not bring it'}."
            f" Try: apt-get install {packages}",
            file=sys.stderr,
        )
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
