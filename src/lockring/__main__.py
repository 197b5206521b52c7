"""`python -m lockring` is the `lockring` command."""

from __future__ import annotations

import sys

from lockring.cli import main

if __name__ == "__main__":
    sys.exit(main())
