"""The client's machine: tickets, sessions, renewals, routes and links, without I/O.

Shells import from here and never deeper. A shell makes one `ClientCore`, drives it as `core.machine` says, and
carries out its effects.
"""

from lockring.core.client.core import ClientCore as ClientCore
from lockring.core.client.effects import CallResult as CallResult
from lockring.core.client.effects import ClientEffect as ClientEffect
from lockring.core.client.effects import Connect as Connect
from lockring.core.client.effects import Disconnect as Disconnect
from lockring.core.client.effects import GrantLost as GrantLost
from lockring.core.client.effects import GroupChange as GroupChange
from lockring.core.client.effects import LongWait as LongWait
from lockring.core.client.effects import LossOnBehalf as LossOnBehalf
from lockring.core.client.effects import Resolve as Resolve
from lockring.core.client.effects import SendTo as SendTo
from lockring.core.client.effects import Update as Update
from lockring.core.client.group_view import GroupSubscription as GroupSubscription
from lockring.core.client.group_view import GroupView as GroupView
from lockring.core.client.groups import REPLACED as REPLACED
from lockring.core.client.links import CONNECTING as CONNECTING
from lockring.core.client.links import no_credential as no_credential
from lockring.core.client.listeners import HolderReference as HolderReference
from lockring.core.client.listeners import LossListener as LossListener
from lockring.core.client.listeners import MemberReference as MemberReference
from lockring.core.client.listings import UNKNOWN as UNKNOWN
from lockring.core.client.listings import LocksFound as LocksFound
from lockring.core.client.moves import OTHER_CLUSTER as OTHER_CLUSTER
from lockring.core.client.outlook import Wait as Wait
from lockring.core.client.queries import ONLY_ACQUISITION as ONLY_ACQUISITION
from lockring.core.client.queries import PageRequest as PageRequest
from lockring.core.client.queries import Query as Query
from lockring.core.client.queries import QueryKind as QueryKind
from lockring.core.client.status import ClientStatus as ClientStatus
from lockring.core.client.tickets import ENDED as ENDED
from lockring.core.client.tickets import HELD as HELD
from lockring.core.client.tickets import PENDING as PENDING
from lockring.core.client.tickets import OnBehalf as OnBehalf
from lockring.core.client.tickets import Ticket as Ticket
from lockring.core.client.tickets import TicketState as TicketState
from lockring.core.client.tickets import deadline_ns_of as deadline_ns_of
from lockring.core.client.tickets import not_held as not_held
from lockring.core.client.watches import BACKLOG_MAX as BACKLOG_MAX
from lockring.core.client.watches import Backlog as Backlog
