"""The checks of the groups in a run's history. Knows nothing of how lockring works.

- G1: the intervals in which members rightly believe that a key is their own do not overlap. An interval reaches from
  a look that said so over all later ones to the end of the callback that takes the key away, or to the end of the
  membership: to the call of leave, the loss, or the client's own deadline as it was last seen. No look says so after
  a membership has ended.
- G2: where one member looked after another one had looked, and both owned the key, the later fence is the greater
  one. A member's own fence for a key, and the version of its view, never fall. All who know a version know the same
  members. At the register no fence falls, and no member is refused while it rightly believes that it owns the key.
- G3: after the faults, all members soon know one settled view with just them, and each key has an owner.

A look that was still in progress when the key was taken away shows nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from lockring.names import lock_of_group
from tests.chaos.history import Owned, Regrouped, Viewed, name_of_key
from tests.chaos.register import Row

if TYPE_CHECKING:
    from tests.chaos.checker import Grant

NEVER_NS: Final = 1 << 62

GrantKey = tuple[str, int, str]
"""Name of the group's lock, token, client: as the checker knows grants."""


class Steps:
    """A key's fence as one member saw it: one number, from the first look at it to the last one."""

    __slots__ = ("claim", "fence", "first_at_ns", "last_from_ns")

    def __init__(self, claim: Claim, event: Owned) -> None:
        self.claim = claim
        self.fence = event.fence
        self.first_at_ns = event.at_ns
        self.last_from_ns = event.from_ns

    def __str__(self) -> str:
        return f"{self.claim} with fence {self.fence}"


class Claim:
    """A time in which a member believes that a key is its own.

    Attributes:
        grant: of the membership.
        key: as the register names it.
        from_ns: when the first look had said so.
        last_from_ns: when the last look began that said so.
        closed_at_ns: when the program had let go of the key.
        steps: by fence.
    """

    __slots__ = ("closed_at_ns", "from_ns", "grant", "key", "last_from_ns", "steps")

    def __init__(self, grant: Grant, key: str, event: Owned) -> None:
        self.grant = grant
        self.key = key
        self.from_ns = event.at_ns
        self.last_from_ns = event.from_ns
        self.closed_at_ns = NEVER_NS
        self.steps: dict[int, Steps] = {}

    @property
    def until_ns(self) -> int:
        """Up to when it owned the key at least. Before `from_ns` if that was no longer than the only look."""
        return max(self.last_from_ns, min(self.closed_at_ns, self.grant.believed.until_ns))

    def looked(self, event: Owned) -> None:
        """A look that said so."""
        self.last_from_ns = max(self.last_from_ns, event.from_ns)
        step = self.steps.setdefault(event.fence, Steps(self, event))
        step.last_from_ns = max(step.last_from_ns, event.from_ns)

    def overlaps(self, other: Claim) -> bool:
        """Whether both surely owned the key at one moment.

        Of a single look the moment lies anywhere between its ends.
        """
        return self.from_ns < other.until_ns and other.from_ns < self.until_ns

    def __str__(self) -> str:
        entered = self.grant.entered
        return f"{entered.client} (process {entered.pid}, membership {entered.token})"


class GroupChecker:
    """The part of the checker that is about groups.

    Args:
        grants: of the checker; a membership is a grant of its group's lock.
        counts: of the checker.
        found: called with the rule, a name, a time and a text for each problem.
    """

    def __init__(
        self,
        grants: dict[GrantKey, Grant],
        counts: Counter[str],
        found: Callable[[str, str, int, str], None],
    ) -> None:
        self._grants = grants
        self._counts = counts
        self._found = found
        self._claims: dict[str, list[Claim]] = defaultdict(list)
        self._open: dict[tuple[GrantKey, str], Claim] = {}
        self._taken_at_ns: dict[tuple[GrantKey, str], int] = {}
        self._fences: dict[tuple[GrantKey, str], int] = {}
        self._newest: dict[tuple[str, str], Viewed] = {}
        self._versions: dict[GrantKey, int] = {}
        self._members: dict[tuple[str, int], frozenset[str]] = {}
        self._last_look: dict[str, Owned] = {}

    # ----------------------------------------------------------------------- taking in

    def take(self, event: Owned | Regrouped | Viewed) -> None:
        """Take an event in, after the one of the acquire that it belongs to."""
        membership = (lock_of_group(event.group), event.token, event.client)
        match event:
            case Owned():
                self._owned(membership, event)
            case Regrouped():
                self._counts["keys lost to others"] += len(event.lost)
                for key in event.lost:
                    self._taken_at_ns[membership, key] = event.at_ns
                    claim = self._open.pop((membership, key), None)
                    if claim is not None:
                        claim.closed_at_ns = event.let_go_at_ns
            case Viewed():
                self._viewed(membership, event)

    def _owned(self, membership: GrantKey, event: Owned) -> None:
        self._counts["looks at owned keys"] += 1
        name = name_of_key(event.group, event.key)
        grant = self._grants.get(membership)
        if grant is None:
            self._found("G1", name, event.at_ns, f"{event.client} owns it without a membership")
            return
        grant.held(event.at_ns, event.left_ns)
        if event.from_ns <= self._taken_at_ns.get((membership, event.key), -1):
            return
        self._last_look[name] = event
        claim = self._open.get((membership, event.key))
        if claim is None:
            claim = self._open[membership, event.key] = Claim(grant, name, event)
            self._claims[name].append(claim)
        claim.looked(event)
        highest = self._fences.get((membership, event.key), event.fence)
        if event.fence < highest:
            self._found("G2", name, event.at_ns, f"{claim}: fence {event.fence} after {highest}")
        self._fences[membership, event.key] = max(highest, event.fence)

    def _viewed(self, membership: GrantKey, event: Viewed) -> None:
        lock = membership[0]
        self._newest[event.group, event.client] = event
        before = self._versions.get(membership, 0)
        if event.version < before:
            text = f"{event.client} (membership {event.token}): version {event.version} after {before}"
            self._found("G2", lock, event.at_ns, text)
        self._versions[membership] = max(before, event.version)
        members = frozenset(event.members)
        known = self._members.get((event.group, event.version))
        if known is None:
            self._members[event.group, event.version] = members
            self._counts["views of groups"] += 1
        elif known != members:
            text = f"version {event.version} is known with {sorted(members)} and with {sorted(known)}"
            self._found("G2", lock, event.at_ns, text)

    # ----------------------------------------------------------------------- judging

    def judge(self, after_ns: int, before_ns: int) -> None:
        """Find what is wrong with what began between two times."""
        for name, all_claims in self._claims.items():
            claims = [claim for claim in all_claims if after_ns < claim.from_ns < before_ns]
            self._exclusive(name, claims)
            self._fenced(name, claims)

    def _exclusive(self, name: str, claims: list[Claim]) -> None:
        going_on: list[Claim] = []
        for claim in sorted(claims, key=lambda each: each.from_ns):
            if claim.last_from_ns > claim.grant.ended_ns:
                text = f"{claim} says to own it though its membership had ended"
                self._found("G1", name, claim.last_from_ns, text)
            going_on = [each for each in going_on if each.until_ns > claim.from_ns]
            for before in going_on:
                if before.grant is not claim.grant and claim.overlaps(before):
                    self._found("G1", name, claim.from_ns, f"{claim} and {before} both owned it")
            going_on.append(claim)

    def _fenced(self, name: str, claims: list[Claim]) -> None:
        steps = [step for claim in claims for step in claim.steps.values()]
        looked = iter(sorted(steps, key=lambda each: each.first_at_ns))
        following = next(looked, None)
        highest: Steps | None = None
        for step in sorted(steps, key=lambda each: each.last_from_ns):
            while following is not None and following.first_at_ns < step.last_from_ns:
                if highest is None or following.fence > highest.fence:
                    highest = following
                following = next(looked, None)
            if highest is None or highest.claim.grant is step.claim.grant:
                continue
            if step.fence <= highest.fence:
                self._found("G2", name, step.last_from_ns, f"{step} owned it after {highest}")

    def judge_register(self, rows: Iterable[Row]) -> None:
        """Check the writes that the register has seen: fences never fall, writers owned the key, and no rightful
        owner was refused."""
        highest: dict[str, Row] = {}
        for row in rows:
            self._counts[f"writes for keys {row.verdict}"] += 1
            claims = [
                claim for claim in self._claims.get(row.lock, ()) if claim.grant.entered.client == row.client
            ]
            who = f"{row.client} with fence {row.token}"
            if not any(row.token in claim.steps for claim in claims):
                self._found("G2", row.lock, row.at_ns, f"{who} has written without owning the key")
            before = highest.get(row.lock)
            if row.verdict == "accepted":
                if before is not None and row.token < before.token:
                    self._found("G2", row.lock, row.at_ns, f"{who} has written after fence {before.token}")
                highest[row.lock] = row
            elif any(claim.from_ns <= row.at_ns < claim.until_ns for claim in claims):
                self._found("G2", row.lock, row.at_ns, f"{who} was refused while it owned the key")
            else:
                self._counts["fenced off"] += 1

    def unsettled(self, wanted: dict[str, set[str]], keys: Iterable[str], since_ns: int) -> list[str]:
        """Return what is still missing, by looks since a time, until each group is settled; nothing if it is.

        Args:
            wanted: the groups, with the clients that should be their members under their own names.
            keys: of each group.
            since_ns: when all faults had ended.
        """
        missing = []
        for group, clients in wanted.items():
            versions = set()
            for client in sorted(clients):
                view = self._newest.get((group, client))
                if view is None or view.at_ns < since_ns:
                    missing.append(f"{group}: {client} is no member")
                    continue
                versions.add(view.version)
                if set(view.members) != clients or len(view.members) != len(clients):
                    missing.append(f"{group}: {client} knows the members {', '.join(view.members)}")
                elif not view.settled:
                    missing.append(f"{group}: version {view.version} is not settled for {client}")
            if len(versions) > 1:
                missing.append(f"{group}: the members know the versions {sorted(versions)}")
            for key in keys:
                look = self._last_look.get(name_of_key(group, key))
                if look is None or look.from_ns < since_ns:
                    missing.append(f"{group}: {key} has no owner")
        return missing
