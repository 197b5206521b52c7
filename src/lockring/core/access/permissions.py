"""All that one identity may do: a table of names for each verb, and its limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from lockring.core.access.name_table import NameTable
from lockring.core.access.quotas import NO_LIMITS, Limits
from lockring.core.access.rules import Rule
from lockring.core.access.verbs import Verb


class Permissions(NamedTuple):
    """All that one identity may do. Immutable, so that threads may share it.

    Attributes:
        tables: the rules of each verb, at the place of its number.
        limits: its limits at each server.
        roles: the names of its roles.
        is_admin: whether the ids of others' sessions may be shown. It is looked up once, for all requests.
    """

    tables: tuple[NameTable, ...]
    limits: Limits = NO_LIMITS
    roles: tuple[str, ...] = ()
    is_admin: bool = False

    def allows(self, verb: Verb, name: str = "") -> bool:
        """Return whether a right is there for a name; for `Verb.ADMIN` the name does not matter."""
        return self.tables[verb].allows(name)

    def rule_for(self, verb: Verb, name: str = "") -> Rule | None:
        """Return the rule that decides, None if no rule matches, which refuses."""
        return self.tables[verb].rule_for(name)


def compile_permissions(
    rules: Sequence[Rule], *, limits: Limits = NO_LIMITS, roles: Iterable[str] = ()
) -> Permissions:
    """Return what rules allow, in the form in which one search decides.

    Args:
        rules: of all roles that an identity has, in their order.
        limits: its limits.
        roles: the names of the roles.
    """
    of_admin = [each for each in rules if each.verb is Verb.ADMIN]
    included = [] if any(each.denies for each in of_admin) else of_admin[:1]
    tables = tuple(
        NameTable([each for each in rules if each.verb is verb] + ([] if verb is Verb.ADMIN else included))
        for verb in Verb
    )
    return Permissions(tables, limits, tuple(roles), tables[Verb.ADMIN].allows(""))


NOTHING: Final = compile_permissions(())
"""No right at all."""

EVERYTHING: Final = compile_permissions((Rule(Verb.ADMIN, "", True, False, "(everything)"),))
"""Every right, without limits: for a server that checks no rights."""


def why_denied(who: object, permissions: Permissions, verb: Verb, name: str = "") -> str:
    """Return why a right is refused, and the rule that is missing or in the way, as a sentence.

    Args:
        who: the identity, as its text.
        permissions: what it may do, which does not include this.
        verb: the right.
        name: the lock or node in question, "" for none.
    """
    what = f"{verb.word} {name!r}" if name else verb.word
    rule = permissions.rule_for(verb, name)
    if rule is not None:
        return f'{who} may not {what}: the rule "{rule.text}" of the role {rule.role!r} forbids it'
    roles = (
        f"its roles ({', '.join(permissions.roles)}) have"
        if permissions.roles
        else "it has no role that allows anything, and so"
    )
    missing = f"{verb.word} {name}" if name else verb.word
    return f'{who} may not {what}: {roles} no rule "{missing}"'
