"""The decision about one request: the right that is missing, if one is, and the words for that."""

from __future__ import annotations

from typing import NamedTuple

from lockring.core.access.grantee import Grantee
from lockring.core.access.permissions import NOTHING, why_denied
from lockring.core.access.requirements import Condition, Requirement
from lockring.core.access.verbs import Verb
from lockring.errors import Denied, Unauthenticated
from lockring.ids import SessionId

_OF_A_NAME = frozenset({Condition.NAME, Condition.NODE, Condition.OWNER_AND_NAME})


class MissingRight(NamedTuple):
    """The right that a request lacks.

    Attributes:
        text: why it is refused, as a sentence.
        right: the right that is missing, as its verb; "" if no right would help.
        name: the lock or node in question, "" for none.
        rule: the rule that refuses, "" if none matches.
        is_unproven: whether the identity is not proven any more, so that another credential is needed.
    """

    text: str
    right: str = ""
    name: str = ""
    rule: str = ""
    is_unproven: bool = False

    def error(self) -> Denied:
        """Return the error that says so."""
        if self.is_unproven:
            return Unauthenticated(self.text, name=self.name)
        return Denied(self.text, name=self.name, right=self.right)


def missing_right(grantee: Grantee, requirement: Requirement, name: str = "") -> MissingRight | None:
    """Return the right that an identity lacks for a request, None if it has what is needed.

    Whether a session is the identity's own is not decided here, nor which names of many may be shown.

    Args:
        grantee: the identity and its rights.
        requirement: the condition that the request sets.
        name: the lock or node that it names, "" if it names none.
    """
    condition, verb = requirement
    if condition is Condition.FREE:
        return None
    if grantee.is_expired:
        return MissingRight(
            f"{grantee.identity} has expired, or was revoked; show another credential", is_unproven=True
        )
    if grantee.permissions is NOTHING and not grantee.is_node and verb is None:
        return MissingRight(
            f"{grantee.identity} has no role here that allows anything; the ACL file gives it one"
        )
    if condition is Condition.SERVER:
        return (
            None if grantee.is_node else MissingRight(f"{grantee.identity} is not a server of this cluster")
        )
    if verb is None:
        return None
    if condition in _OF_A_NAME and not grantee.permissions.allows(verb, name):
        return lacks(grantee, verb, name)
    # A server may read everything: as a member of the cluster it is sent all of it.
    is_members = grantee.is_node and verb is Verb.READ
    if (
        condition is Condition.EVERYTHING
        and not is_members
        and not grantee.permissions.tables[verb].allows_all("")
    ):
        return MissingRight(
            f'{grantee.identity} may not {verb.word} every name, as this request needs: give it the rule "{verb.word} *",'
            " and no rule that denies a part of that",
            verb.word,
        )
    return None


def lacks(grantee: Grantee, verb: Verb, name: str) -> MissingRight:
    """Return that an identity lacks a right for a name."""
    rule = grantee.permissions.rule_for(verb, name)
    text = why_denied(grantee.identity, grantee.permissions, verb, name)
    return MissingRight(text, verb.word, name, "" if rule is None else rule.text)


def foreign_session(grantee: Grantee, session: SessionId) -> MissingRight:
    """Return that a session is not an identity's own. The words are the same whether or not there is such a session."""
    return MissingRight(
        f"{grantee.identity} may not use the session {session!r}: it belongs to another identity, if there is one"
    )
