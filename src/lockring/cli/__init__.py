"""The `lockring` command. One module per family of commands, imported when its command runs."""

from __future__ import annotations

from lockring.cli.app import main

__all__ = ["main"]
