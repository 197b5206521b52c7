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
    def counted(cls) -> Segments:
        """Return the counts of all open connections of this process."""
        sent = received = 0
        for path in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if not os.readlink(path).startswith("socket:"):
                    continue
                with socket.socket(fileno=os.dup(int(path.name))) as sock:
                    if sock.family not in (socket.AF_INET, socket.AF_INET6):
                        continue
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    segments_in, segments_out = struct.unpack_from("=II", info, _DATA_SEGMENTS)
                    sent, received = sent + segments_out, received + segments_in
        return cls(sent, received)
