"""The acts and outcomes that the audit log names."""

from __future__ import annotations

from typing import Literal

Act = Literal[
    "connect",
    "denied",
    "acquire",
    "release",
    "lost",
    "break",
    "drain",
    "undrain",
    "join",
    "leave",
    "reload",
    "dropped",
]
"""The acts that are logged. "denied" is a refusal of any kind; "dropped" says that records are missing."""

Outcome = Literal["ok", "refused", "would-refuse", "failed"]
"""How it went. "would-refuse": the rights are only tried out, so the request was carried out."""
