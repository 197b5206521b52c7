"""Which identity may do what: rules, the decision about one request, and limits. Pure values and functions.

- `verbs`: the rights that there are.
- `rules`: one line of a role, such as `acquire jobs/*`.
- `name_table`: the rules of one verb, compiled so that one search finds the rule for a name.
- `permissions`: all that one identity may do, and its limits.
- `policy`: the roles, and which identities have which.
- `quotas`: the counters of one identity, checked against its limits.
- `grantee`: one connection's identity with its rights, and the nodes that its other side may be.
- `hidden_ids`: the ids of sessions as others see them.
- `acts`: the words of the audit log.
- `requirements`: the right that each message and each gRPC method needs.
- `decisions`: the right that a request lacks.

The decision: a `deny` rule that matches refuses. If none does, the most specific rule that matches allows. If none
matches, the request is refused.
"""

from __future__ import annotations

from lockring.core.access.acts import Act as Act
from lockring.core.access.acts import Outcome as Outcome
from lockring.core.access.decisions import MissingRight as MissingRight
from lockring.core.access.decisions import foreign_session as foreign_session
from lockring.core.access.decisions import lacks as lacks
from lockring.core.access.decisions import missing_right as missing_right
from lockring.core.access.grantee import ANY_NODE as ANY_NODE
from lockring.core.access.grantee import NO_NODE as NO_NODE
from lockring.core.access.grantee import UNCHECKED as UNCHECKED
from lockring.core.access.grantee import Grantee as Grantee
from lockring.core.access.grantee import GranteeOf as GranteeOf
from lockring.core.access.grantee import Newcomer as Newcomer
from lockring.core.access.grantee import NodeProof as NodeProof
from lockring.core.access.hidden_ids import hidden_id as hidden_id
from lockring.core.access.name_table import NameTable as NameTable
from lockring.core.access.permissions import EVERYTHING as EVERYTHING
from lockring.core.access.permissions import NOTHING as NOTHING
from lockring.core.access.permissions import Permissions as Permissions
from lockring.core.access.permissions import compile_permissions as compile_permissions
from lockring.core.access.permissions import why_denied as why_denied
from lockring.core.access.policy import AccessPolicy as AccessPolicy
from lockring.core.access.policy import AccessRole as AccessRole
from lockring.core.access.policy import Assignee as Assignee
from lockring.core.access.policy import ClaimPattern as ClaimPattern
from lockring.core.access.quotas import Limits as Limits
from lockring.core.access.quotas import Quota as Quota
from lockring.core.access.requirements import GRPC_REQUIREMENTS as GRPC_REQUIREMENTS
from lockring.core.access.requirements import NEVER_THROTTLED as NEVER_THROTTLED
from lockring.core.access.requirements import REQUIREMENTS as REQUIREMENTS
from lockring.core.access.requirements import Condition as Condition
from lockring.core.access.requirements import Requirement as Requirement
from lockring.core.access.rules import Rule as Rule
from lockring.core.access.rules import parse_rule as parse_rule
from lockring.core.access.verbs import Verb as Verb
from lockring.core.access.verbs import verb_of as verb_of
