"""Work of a test that coverage need not see, since other tests are there to show that it is covered."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def untraced(call: Callable[P, T]) -> Callable[P, T]:
    """Let a function run without being traced: the trace makes a core five times slower."""

    @functools.wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        tracer, tracer_of_threads = sys.gettrace(), threading.gettrace()
        if tracer is None:
            return call(*args, **kwargs)
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        try:
            return call(*args, **kwargs)
        finally:
            threading.settrace(tracer_of_threads)  # type: ignore[arg-type]
            sys.settrace(tracer)

    return called
