"""`lockring ring`, `drain` and `undrain`: the ring, and emptying a node."""

from __future__ import annotations

import functools
import shutil
import sys
import time
from typing import Annotated, Any, Final, NamedTuple

import click
import msgspec

from lockring.cli.client_settings import ClientSettings
from lockring.cli.connect import ask, client_options, client_settings
from lockring.cli.orders import give_order
from lockring.cli.output import count, duration, print_json, say
from lockring.cli.sections import read_settings
from lockring.cli.status import living, replica_of
from lockring.config import setting
from lockring.errors import InvalidRequest, LockringError, Unavailable
from lockring.exits import NOT_ACQUIRED, OK
from lockring.ids import NodeId
from lockring.names import check_node_id
from lockring.net.oneshot import Dial, ServerView, ask_drain, ask_state, ask_undrain
from lockring.terminals import takes_colour

_LOOK_S: Final = 0.2
_CURRENT_S_MAX: Final = 5.0
"""Age up to which a state tells whether a node can be stopped. A server that is in touch has one of a second or two."""


class DrainSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of `lockring drain`."""

    wait: Annotated[bool, setting("Wait until the node has no slots left.", variable=False, file=False)] = (
        False
    )
    timeout_s: Annotated[
        float | None,
        setting(
            f"With --wait: how long to wait at most before exiting with {NOT_ACQUIRED}.",
            unit="seconds",
            minimum=0,
            variable=False,
            file=False,
        ),
    ] = None


def ask_view(dial: Dial, server: str, timeout_s: float, *, credential: str = "") -> ServerView:
    """Return one server's view of the cluster. Raises what `ask_state` does."""
    return ask_state(server, timeout_s=timeout_s, dial=dial, credential=credential)


def ask_current_view(dial: Dial, server: str, timeout_s: float, *, credential: str = "") -> ServerView:
    """Return one server's view of the cluster as it is now.

    Raises:
        Unavailable: newer states may have escaped the server for seconds, or it does not answer.
        LockringError: it refuses.
    """
    view = ask_view(dial, server, timeout_s, credential=credential)
    if view.age_s > _CURRENT_S_MAX:
        why = f": {view.note}" if view.note else ""
        raise Unavailable(f"{server} has heard nothing new for {duration(view.age_s)}{why}")
    return view


@click.command()
@client_options()
def ring(as_json: bool, **given: Any) -> None:
    """Draw the ring: the part of the circle that each node has.

    It shows the assignment of slots to nodes, not whether the slots are served now: see `lockring status` for that.
    """
    settings = client_settings(given)
    view = ask(settings, functools.partial(ask_view, credential=settings.credential()))
    state = view.state
    if view.age_s > _CURRENT_S_MAX:
        old = f"this is the ring of {duration(view.age_s)} ago: {view.note or 'the server has heard nothing new since'}"
        print(f"lockring: warning: {old}", file=sys.stderr, flush=True)
    if as_json:
        print_json(
            {
                "version": str(state.version),
                "slots": [
                    {
                        "slot": number,
                        "primary": living(state, slot.primary),
                        "backup": living(state, replica_of(slot.backup)),
                        "learner": living(state, replica_of(slot.learner)),
                    }
                    for number, slot in enumerate(state.slots)
                ],
            }
        )
        return
    from lockring.ring_picture import draw

    width = shutil.get_terminal_size().columns
    print(draw(state, width=width, colour=takes_colour(sys.stdout)))


@click.command()
@click.argument("node")
@client_options(DrainSettings)
def drain(node: str, as_json: bool, **given: Any) -> int:
    """Move everything off a node. Its locks stay held; it gets no new slots and can then be stopped.

    Refused for the last node that can serve. Reversed by lockring undrain.
    """
    node_id = check_node_id(node)
    settings = read_settings(DrainSettings, "drain", given)
    wait = settings.wait
    if settings.timeout_s is not None and not wait:
        raise InvalidRequest("--timeout limits the wait of --wait: give both")
    end_s = None if settings.timeout_s is None else time.monotonic() + settings.timeout_s
    cluster = client_settings(given)
    credential = cluster.credential()

    def order(dial: Dial, server: str, timeout_s: float) -> None:
        ask_drain(server, node_id, timeout_s=timeout_s, dial=dial, credential=credential)

    give_order(cluster, order)
    left = _left_on_draining(node_id, cluster)
    told = None
    while wait and left.any and (end_s is None or time.monotonic() < end_s):
        if left != told and not as_json:
            say(left.sentence(node))
            told = left
        time.sleep(_LOOK_S)
        left = _left_on(node_id, cluster)
    if left.condition == "active":
        raise LockringError(f"node {node} is no longer draining: it was made active again", name=node)
    if as_json:
        print_json(
            {"node": node, "drained": not left.any, "slots_primary": left.primary, "slots_copy": left.copy}
        )
    elif left.any:
        say(f"{node} is draining: {left.sentence(node)}; see lockring status")
    elif left.condition == "gone":
        say(f"{node} is no longer a member: it has no slots left")
    else:
        say(f"{node} is drained and can be stopped")
    return NOT_ACQUIRED if wait and left.any else OK


@click.command()
@click.argument("node")
@client_options()
def undrain(node: str, as_json: bool, **given: Any) -> None:
    """Let a drained node have slots again. Changes nothing if it was not drained."""
    node_id = check_node_id(node)
    cluster = client_settings(given)
    credential = cluster.credential()

    def order(dial: Dial, server: str, timeout_s: float) -> None:
        ask_undrain(server, node_id, timeout_s=timeout_s, dial=dial, credential=credential)

    give_order(cluster, order)
    if as_json:
        print_json({"node": node, "drained": False})
    else:
        say(f"{node} may have slots again; see lockring status")


class _Remainder(NamedTuple):
    """The slots that a node still has, as their primary or with a copy.

    Attributes:
        condition: "draining", "active", or "gone" if it is not a member.
        primary: the number of slots that it is the primary of.
        copy: the number of slots that it has a copy of.
    """

    condition: str
    primary: int
    copy: int

    @property
    def any(self) -> bool:
        return self.condition != "active" and bool(self.primary or self.copy)

    def sentence(self, node: str) -> str:
        if self.primary:
            return f"{node} still has {count(self.primary, 'slot')} and a copy of {self.copy}"
        return (
            f"{node} serves nothing, and has a copy of {count(self.copy, 'slot')} until another node has one"
        )


def _left_on_draining(node: NodeId, cluster: ClientSettings) -> _Remainder:
    """Return the remainder once the queried server knows of the drain; one other than the coordinator may lag."""
    until_s = time.monotonic() + cluster.connect_timeout_s
    while (left := _left_on(node, cluster)).condition == "active" and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
    return left


def _left_on(node: NodeId, cluster: ClientSettings) -> _Remainder:
    question = functools.partial(ask_current_view, credential=cluster.credential())
    state = ask(cluster, question).state
    member = state.members.get(node)
    condition = "gone" if member is None else "draining" if member.condition == "draining" else "active"
    primary = copy = 0
    for slot in state.slots:
        primary += slot.primary is not None and slot.primary.node == node
        copy += any(each is not None and each.replica.node == node for each in (slot.backup, slot.learner))
    return _Remainder(condition, primary, copy)
