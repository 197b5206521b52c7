"""Standard output and standard error of the command line, and what becomes of a text that cannot be written.

1. What was to be *printed* and cannot be is `OutputFailed`: that is the outcome of the command. Only a write to standard output raises
   it, so no other error of the system can be taken for one of the output. It is raised once; what is left goes nowhere.
2. What was to be *told* on standard error and cannot be is dropped. The terminal may have been hung up, the reader of a log may have
   gone: that changes nothing of what the command does, nor its exit code.
3. No text fails for its encoding: what the locale's has not is written as an escape.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, Final, TextIO

from lockring.errors import OutputFailed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_TAKES_MS: Final = 1_000
"""How long a message may take that is written to a descriptor which does not block and is full."""


class _StandardOutput(io.FileIO):
    """Standard output; see the module."""

    _has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._has_failed:
            try:
                return _write(self.fileno(), data, None)
            except OSError as error:
                self._has_failed = True
                text = f"the output cannot be written: {error.strerror or error}"
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
    """Write some of the data, waiting where the descriptor does not block and is full.

    Raises:
        OSError: it cannot be written, or takes nothing within `wait_ms`.
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
    """Make `sys.stdout` and `sys.stderr` keep the rules above. Streams that were put in their place are left alone."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_StandardOutput(1, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_StandardError(2, "w", closefd=False), sys.stderr, at_once=True)


def _text(raw: io.FileIO, before: TextIO | None, *, at_once: bool = False) -> TextIO:
    # None where Python found the descriptor closed, or something that is no stream.
    encoding = "utf-8" if before is None else before.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=at_once or raw.isatty(),
        write_through=isinstance(before, io.TextIOWrapper) and before.write_through,
    )


def is_closed_pipe(error: OutputFailed) -> bool:
    """Whether whoever read the output has gone."""
    return error.errno == errno.EPIPE
