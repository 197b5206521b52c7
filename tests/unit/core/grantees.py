"""Identities with rights, for tests of the cores."""

from __future__ import annotations

from lockring.core.access import Grantee, Limits, Quota, compile_permissions, parse_rule
from lockring.core.access.quotas import NO_LIMITS
from lockring.protocol.identities import Identity


def grantee(
    who: str, *rules: str, is_enforced: bool = True, limits: Limits = NO_LIMITS, quota: Quota | None = None
) -> Grantee:
    """A connection of the token `who` with these rules."""
    identity = Identity("token", who)
    permissions = compile_permissions(
        [parse_rule(each, "role") for each in rules], limits=limits, roles=["role"]
    )
    return Grantee(identity, permissions, quota or Quota(str(identity), limits), is_enforced=is_enforced)
