"""One rule of a role: `[deny ]VERB[ NAMES]`.

NAMES is a name, or a prefix that ends in `*`. Without it, the rule is about every name. `admin` takes none.
A name that itself ends in `*` can be matched by a prefix only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.core.access.verbs import Verb, verb_of
from lockring.errors import InvalidRequest
from lockring.names import LOCK_NAME_BYTES_MAX, utf8_fault

_NODE_ID_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_DENY: Final = "deny"


class Rule(NamedTuple):
    """One rule.

    Attributes:
        verb: the right.
        pattern: the name, or the prefix of the names, that it is about.
        is_prefix: whether it is a prefix.
        denies: whether it takes the right away.
        role: the role that it is of.
    """

    verb: Verb
    pattern: str
    is_prefix: bool
    denies: bool
    role: str

    @property
    def text(self) -> str:
        """The rule as a role writes it, with `*` where it left the names out."""
        deny = f"{_DENY} " if self.denies else ""
        if self.verb is Verb.ADMIN:
            return f"{deny}{self.verb.word}"
        return f"{deny}{self.verb.word} {self.pattern}{'*' if self.is_prefix else ''}"

    def matches(self, name: str) -> bool:
        """Return whether the rule is about a name."""
        return name.startswith(self.pattern) if self.is_prefix else name == self.pattern


def parse_rule(text: str, role: str) -> Rule:
    """Return the rule that a text writes.

    Args:
        text: such as "acquire jobs/*".
        role: the name of its role.

    Raises:
        InvalidRequest: it is malformed.
    """
    word, _, rest = text.strip().partition(" ")
    denies = word == _DENY
    if denies:
        word, _, rest = rest.strip().partition(" ")
    if not word:
        raise InvalidRequest(f"the rule {text!r} names no right; write, for example, 'acquire jobs/*'")
    verb, names = verb_of(word), rest.strip()
    if verb is Verb.ADMIN and names:
        raise InvalidRequest(
            f"the rule {text!r} names {names!r}, but admin is not about names; write 'admin' alone"
        )
    fault = utf8_fault(names)
    if fault:
        raise InvalidRequest(f"the rule {text!r} is not valid UTF-8 text: {fault}")
    is_prefix = not names or names.endswith("*")
    pattern = names.removesuffix("*") if is_prefix else names
    if "*" in pattern:
        raise InvalidRequest(f"the rule {text!r} has a '*' before the end; it stands for any end of a name")
    if len(pattern.encode()) > LOCK_NAME_BYTES_MAX:
        raise InvalidRequest(
            f"the rule {text[:60]!r}… is too long: no name has more than {LOCK_NAME_BYTES_MAX} bytes in UTF-8"
        )
    if verb is Verb.DRAIN and not _NODE_ID_LETTERS.issuperset(pattern):
        raise InvalidRequest(
            f"the rule {text!r} can match no node: ids are letters, digits, '.', '-' and '_'"
        )
    return Rule(verb, pattern, is_prefix, denies, role)
