"""The rights that there are, as verbs."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from lockring.errors import InvalidRequest


class Verb(IntEnum):
    """A right. Its number is its place in `Permissions.tables`.

    READ: describe and list locks and groups. ACQUIRE: acquire, and with it renew, release and follow what one has
    acquired. WATCH: follow the changes of a lock. BREAK: end another's lease. DRAIN: drain a node, and undo that; its
    names are node ids. ADMIN: see the ids of sessions and all that servers say of themselves, reload; it has no names,
    and includes every other right.
    """

    READ = 0
    ACQUIRE = 1
    WATCH = 2
    BREAK = 3
    DRAIN = 4
    ADMIN = 5

    @property
    def word(self) -> str:
        """The verb as rules write it."""
        return self.name.lower()


_BY_WORD: Final = {each.word: each for each in Verb}


def verb_of(word: str) -> Verb:
    """Return the verb that a rule names.

    Raises:
        InvalidRequest: there is no such verb.
    """
    found = _BY_WORD.get(word)
    if found is None:
        raise InvalidRequest(f"there is no right {word!r}; the rights are {', '.join(_BY_WORD)}")
    return found
