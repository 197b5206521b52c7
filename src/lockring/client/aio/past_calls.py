"""The errors of calls that are over: raised, and kept by nothing.

The traceback of an error that a program gets has the frames of the program, and all in them. The core knows a call for
some time yet, and would keep them in memory with the future of the call.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from lockring.errors import LockringError


class PastCall:
    """Stands for the future of a call whose error was raised."""

    def done(self) -> bool:
        """Return that nothing waits any more."""
        return True


_PAST_CALL: Final = PastCall()


class CallExchange(Protocol):
    """The core's record of the call of a ticket or a query.

    Attributes:
        call: the future of the error, or of the answer and the error.
    """

    call: Any


def taken_error(exchange: CallExchange) -> LockringError:
    """Return the error of a call, to be raised, and let the exchange forget it.

    Args:
        exchange: of the call, which is done and has an error.
    """
    result = exchange.call.result()
    exchange.call = _PAST_CALL
    error: LockringError = result[1] if isinstance(result, tuple) else result
    return error
