"""The kernel's counts on this process's TCP connections (Linux): messages, independent of the library."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

_DATA_SEGMENTS: Final = 152
"""Where `tcpi_data_segs_in` and `tcpi_data_segs_out` stand in the kernel's `struct tcp_info`, which only ever grows."""


class Segments(NamedTuple):
    """Segments that carried data. A small message takes one segment, or shares it with others."""

    sent: int
    received: int

    @classmethod
    def counted(cls) -> dict[str, Segments]:
        """Return the counts of the open connections of this process, by the kernel's name of each."""
        counts: dict[str, Segments] = {}
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                name = os.readlink(path)
                if not name.startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(path.name))) as sock:
                    if sock.family not in (socket.AF_INET, socket.AF_INET6):
                        continue
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    segments_in, segments_out = struct.unpack_from("=II", info, _DATA_SEGMENTS)
                    counts[name] = cls(segments_out, segments_in)
        return counts

    @classmethod
    def between(cls, before: dict[str, Segments], after: dict[str, Segments]) -> Segments | None:
        """Return the difference of two counts; None if a connection has ended meanwhile, and its count with it."""
        if before.keys() - after.keys():
            return None
        sent = sum(each.sent for each in after.values()) - sum(each.sent for each in before.values())
        received = sum(each.received for each in after.values()) - sum(
            each.received for each in before.values()
        )
        return cls(sent, received)
