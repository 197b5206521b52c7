"""The arguments of a search for locks, checked before any I/O."""

from __future__ import annotations

from typing import Final

from lockring.errors import InvalidRequest
from lockring.names import LOCK_NAME_BYTES_MAX, utf8_fault
from lockring.protocol import LockSearch, Mode

PAGE_LIMIT_MAX: Final = 1_000
"""Most locks on one page of a search."""

MODES: Final = tuple(each.name.lower() for each in Mode)
"""The ways to hold a lock, as a search names them."""


def search_of(
    *, after: object, text: object, owner: object, mode: object, held: object, waiting: object
) -> LockSearch:
    """Return the search that these arguments of `Client.find_locks` describe.

    Raises:
        InvalidRequest: one of them is invalid.
    """
    if mode is not None and mode not in MODES:
        raise InvalidRequest(f"a lock is held in a mode such as {', '.join(MODES)}, not {mode!r}")
    return LockSearch(
        after=_checked(after, "after"),
        text=_checked(text, "text"),
        owner=_checked(owner, "owner"),
        mode=-1 if mode is None else MODES.index(str(mode)),
        is_held=bool(held),
        has_waiters=bool(waiting),
    )


def check_page_limit(limit: object) -> int:
    """Return how many locks a page may have.

    Raises:
        InvalidRequest: it is not a whole number from 1 to 1,000.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_LIMIT_MAX:
        raise InvalidRequest(f"a page has 1 to {PAGE_LIMIT_MAX} locks, not {limit!r}")
    return limit


def _checked(text: object, argument: str) -> str:
    if not isinstance(text, str):
        raise InvalidRequest(f"`{argument}` of a search is text, not {type(text).__name__}")
    fault = utf8_fault(text)
    if fault:
        raise InvalidRequest(f"`{argument}` of a search is not valid UTF-8 text: {fault}")
    if len(text.encode()) > LOCK_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"`{argument}` of a search has at most {LOCK_NAME_BYTES_MAX} bytes in UTF-8, not {len(text.encode())}"
        )
    return text
