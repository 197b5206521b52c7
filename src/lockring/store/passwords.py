"""The variables that hold the password of a store, where its URL has none."""

from __future__ import annotations

from typing import Final

PASSWORD_VARIABLE: Final = "LOCKRING_STORE_PASSWORD"
"""Holds the password."""

PASSWORD_FILE_VARIABLE: Final = "LOCKRING_STORE_PASSWORD_FILE"
"""Names the file that has it, where the other variable is not set."""
