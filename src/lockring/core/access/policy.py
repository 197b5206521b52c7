"""Roles, and which identities have which: the content of an ACL file, checked and compiled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lockring.core.access.permissions import NOTHING, Permissions, compile_permissions
from lockring.core.access.quotas import NO_LIMITS, Limits, smallest
from lockring.core.access.rules import Rule
from lockring.protocol.identities import Identity, Method


class AccessRole(NamedTuple):
    """A role: rules, and the limits of each identity that has it."""

    name: str
    rules: tuple[Rule, ...]
    limits: Limits = NO_LIMITS


class ClaimPattern(NamedTuple):
    """A claim that an identity must have: its name, and the value, or the start of the value if `is_prefix`."""

    name: str
    value: str
    is_prefix: bool = False

    def matches(self, identity: Identity) -> bool:
        """Return whether some claim of an identity has this name and value."""
        return any(
            each.name == self.name
            and (each.value.startswith(self.value) if self.is_prefix else each.value == self.value)
            for each in identity.claims
        )


class Assignee(NamedTuple):
    """Identities that have roles: all that were proven in one way and fit.

    Attributes:
        method: the way.
        name: the identity's name, "" for any.
        claims: what it must claim, all of it.
        roles: the names of the roles that it gets.
    """

    method: Method
    name: str
    claims: tuple[ClaimPattern, ...]
    roles: tuple[str, ...]

    def matches(self, identity: Identity) -> bool:
        """Return whether an identity gets the roles."""
        return (
            self.method == identity.method
            and (not self.name or self.name == identity.name)
            and all(each.matches(identity) for each in self.claims)
        )


class AccessPolicy:
    """All roles and assignees. Immutable but for what it remembers; not safe for use by several threads.

    Args:
        roles: by name.
        assignees: in their order; each names only roles that there are.
    """

    def __init__(self, roles: Mapping[str, AccessRole], assignees: Iterable[Assignee]) -> None:
        self.roles = dict(roles)
        self.assignees = tuple(assignees)
        self._compiled: dict[tuple[str, ...], Permissions] = {(): NOTHING}

    def roles_of(self, identity: Identity) -> tuple[str, ...]:
        """Return the names of the roles that an identity has, in the order of the assignees."""
        found = (role for each in self.assignees if each.matches(identity) for role in each.roles)
        return tuple(dict.fromkeys(found))

    def permissions_of(self, identity: Identity) -> Permissions:
        """Return what an identity may do: once per connection, not per request. The same roles give the same object.

        It is `NOTHING` if no name is left that any rule allows, as where roles only deny.
        """
        names = self.roles_of(identity)
        found = self._compiled.get(names)
        if found is None:
            roles = [self.roles[name] for name in names]
            found = compile_permissions(
                [rule for role in roles for rule in role.rules],
                limits=smallest(role.limits for role in roles),
                roles=names,
            )
            if not any(table.allows_some("") for table in found.tables):
                found = NOTHING
            self._compiled[names] = found
        return found
