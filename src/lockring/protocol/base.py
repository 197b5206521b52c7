"""The base of all messages, and the limits of a frame."""

from typing import Final

import msgspec

PROTOCOL: Final = 1
"""Version of this wire protocol. Both sides must have the same."""


FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest frame of any sender. A longer one ends the connection."""


WAIT_FOREVER: Final = -1
"""`wait_ms` of a request that waits until it is granted, cancelled or its connection ends."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""
