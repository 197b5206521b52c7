"""Installs the browser of these tests: `.venv/bin/python -m tests.browser.install`.

It is Debian's Chromium. Playwright drives it, and brings no browser of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

try:
    from bench.install import Need, install_missing
except ModuleNotFoundError as error:
    sys.exit(
        f"{error.name} is not installed for this Python: run .venv/bin/python -m tests.browser.install, or make browser"
    )

CHROMIUM: Final = Path("/usr/bin/chromium")
NEED: Final = Need(
    server="chromium",
    is_there=CHROMIUM.exists,
    packages=("chromium",),
    services=(),
    version=str,
    libraries={},
)


def main() -> int:
    """Install it if it is missing, and return the exit code."""
    why_not = install_missing((NEED,), may_install=True, say=print)
    if NEED.is_there():
        return 0
    print(
        f"the tests of the pages need chromium, which is not installed: {why_not or 'apt-get did not bring it'}."
        " Try: apt-get install chromium",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
