"""Standard output and standard error of the command line, and what happens if a text cannot be written.

1. Output that cannot be *printed* is `OutputFailed`, the outcome of the command. Only a write to standard output
   raises it, so no other system error is mistaken for it. It is raised once; the remaining output is dropped.
2. A *message* that cannot be written to standard error is dropped. The terminal may have hung up, or the reader of
   a log may have gone; neither changes what the command does, nor its exit code.
3. No text fails because of its encoding: a character that the locale's encoding lacks is written as an escape.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

from lockring.errors import OutputFailed
from lockring.system_errors import reason_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TAKES_MS: Final = 1_000
"""How long a message may take to be written if its descriptor does not block and is full."""


class _StandardOutput(io.FileIO):
    """Standard output; see the module."""

    _has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._has_failed:
            try:
                return _write(self.fileno(), data, None)
            except OSError as error:
                self._has_failed = True
                text = f"the output cannot be written: {reason_of(error)}"
                raise OutputFailed(text, errno=error.errno or 0) from error
        return memoryview(data).nbytes


class _StandardError(io.FileIO):
    """Standard error; see the module."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return _write(self.fileno(), data, _TAKES_MS)
        except OSError:
            return memoryview(data).nbytes


def _write(fd: int, data: ReadableBuffer, wait_ms: int | None) -> int:
    """Write some of the data, waiting if the descriptor does not block and is full.

    Raises:
        OSError: it cannot be written, or no byte is accepted within `wait_ms`.
    """
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(wait_ms):
                raise


def set_up() -> None:
    """Make `sys.stdout` and `sys.stderr` follow the rules above. Replaced streams are left alone."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_StandardOutput(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_StandardError(2, "w", closefd=False), sys.stderr, at_once=True)


def _text(raw: io.FileIO, before: TextIO | None, *, at_once: bool = False) -> TextIO:
    # None if Python found the descriptor closed, or replaced by another object.
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=at_once or raw.isatty(),
        write_through=isinstance(before, io.TextIOWrapper) and before.write_through,
    )


def is_closed_pipe(error: OutputFailed) -> bool:
    """Return whether the reader of the output has gone."""
    return error.errno == errno.EPIPE
