"""Code that a test runs outside the measurement of coverage."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def untraced() -> Iterator[None]:
    """Do not trace what runs in the block: coverage makes a core several times slower."""
    tracer, tracer_of_threads = sys.gettrace(), threading.gettrace()
    if tracer is None:
        yield
        return
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        threading.settrace(tracer_of_threads)  # type: ignore[arg-type]
        sys.settrace(tracer)
