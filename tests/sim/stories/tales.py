"""The eleven stories: what happens in each, and which words stand before its parts.

Each plays in a cluster at rest of three nodes (`journal`: of one), with the default durations. Nothing is left to
chance: all clocks run alike, and every message takes a millisecond. So a story changes only where the protocol does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.sim.framework.world import Clock, S
from tests.sim.rules.groups import GroupScenario
from tests.sim.scenarios.scenario import Scenario
from tests.sim.stories.transcript import Transcript

Tale = Callable[[], str]

TALES: Final[dict[str, Tale]] = {}
"""Every story by the name of its file."""


def _tale(tell: Tale) -> Tale:
    TALES[tell.__name__] = tell
    return tell


class _Even(random.Random):
    """Draws the middle of what is possible, always."""

    def random(self) -> float:
        return 0.5


def _begin(cluster: Scenario) -> Transcript:
    simulation = cluster.simulation
    simulation.network.rng = simulation.store._rng = _Even()
    for process in simulation.processes():
        process.rng = _Even()
        process._draw = process.rng.random
        _run_true(process.clock, cluster.world.now)
    return Transcript(cluster)


def _run_true(clock: Clock, now: int) -> None:
    shown = clock.read(now)
    clock.rate = 0
    clock.offset = shown - now
    clock.grain = 1


@_tale
def acquire() -> str:
    """A client that knows one server's address acquires a lock and gives it back."""
    cluster = Scenario(clients=1)
    story = _begin(cluster)
    (client,) = cluster.simulation.clients
    story.say("The client greets a server, learns the routes, and asks the lock's primary.")
    story.say("The primary answers once the backup has the grant.")
    (task,) = cluster.hold(client, cluster.name)
    story.say("The release is answered at once; the backup hears of it with the next grant, or after 20 ms.")
    cluster.let_go(client, task)
    cluster.run(0.05)
    return story.end()


@_tale
def wait_and_hand_over() -> str:
    """A second client waits, and has the lock one hop after the release."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name)
    story = _begin(cluster)
    story.say("The lock is held. The request of the second client stays open: nothing is polled.")
    waiting = other.take(cluster.name, ttl_ms=10_000)
    cluster.run(0.2)
    story.say("One message to the backup takes the first holder away and brings the second one.")
    cluster.let_go(one, held)
    cluster.wait(lambda: waiting.outcome == "held", 5)
    return story.end()


@_tale
def renewal_by_digest() -> str:
    """Three locks are renewed by a count and a digest; then the node is asked about one that it lacks."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    names = cluster.names(3)
    tasks = cluster.hold(client, *names)
    story = _begin(cluster)
    story.say("A third of the TTL after the last word, one message renews all three.")
    cluster.run(3.5)
    story.say("An operator breaks one. The holder is told, and gives the lock up.")
    cluster.name = names[0]
    cluster.break_lease(tasks[0])
    cluster.run(0.1)
    story.say("The next renewal speaks of two.")
    cluster.run(3.4)
    return story.end()


@_tale
def failover() -> str:
    """The primary is killed; its backup takes over without losing the lock, and a waiter keeps its place."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name)
    waiting = other.take(cluster.name, ttl_ms=10_000)
    cluster.run(0.5)
    story = _begin(cluster)
    backup = cluster.backup()
    story.say("The primary is killed. Its backup notices the lost connection, and asks for the slot.")
    cluster.crash(cluster.primary())
    cluster.wait(lambda: cluster.serves(backup), 8)
    story.say(
        "The backup serves once its promise to the old primary has run out. The holder has noticed nothing."
    )
    cluster.run(0.3)
    assert held.outcome == "held"
    story.say("The waiter asked again by itself, under the same acquisition; it is next.")
    cluster.let_go(one, held)
    cluster.wait(lambda: waiting.outcome == "held", 5)
    return story.end()


@_tale
def planned_move() -> str:
    """The primary is drained: copy, follow, swap, hand over. Nothing waits."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    (held,) = cluster.hold(client, cluster.name)
    node = cluster.primary()
    story = _begin(cluster)
    story.say("The primary is told to drain. A copy is made first, and follows.")
    node.drain()
    cluster.wait(lambda: cluster.primary() is not node and cluster.serves(cluster.primary()), 20)
    story.say(
        "The successor serves on the word of the old primary, which stays as a copy until another one is in sync."
    )
    cluster.run(0.1)
    cluster.let_go(client, held)
    return story.end()


@_tale
def lost_backup() -> str:
    """The backup is killed; the primary has it dropped, and gets another one."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    cluster.hold(client, cluster.name)
    story = _begin(cluster)
    story.say("The backup is killed. The primary asks for it to be dropped before its lease is over.")
    cluster.crash(cluster.backup())
    cluster.wait(lambda: cluster.slot().backup is None, 8)
    story.say("Without a copy the primary serves alone; the third node becomes its learner, then its backup.")
    cluster.wait(lambda: cluster.slot().backup is not None, 20)
    return story.end()


@_tale
def lost_store() -> str:
    """The coordinator's store loses everything; the nodes' versions show it, and tokens go on above all before."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    (held,) = cluster.hold(client, cluster.name)
    story = _begin(cluster)
    story.say("The store loses everything, and the coordinator is restarted on what is left of it: nothing.")
    coordinator = cluster.coordinator
    cluster.crash(coordinator)
    cluster.simulation.store.wipe()
    coordinator.start()
    story.say(
        "A node says which version it has seen: all slots are given away only after every lease has ended."
    )
    cluster.wait(lambda: held.outcome not in ("held", "waiting"), 60)
    story.say("The holder is told before the lock can be had again, and the next token is greater.")
    again = client.take(cluster.name, ttl_ms=10_000)
    cluster.wait(lambda: again.outcome == "held", 60)
    assert again.generation > held.generation
    return story.end()


@_tale
def group_view() -> str:
    """A second member joins a group: the first lets go of what the new view takes from it before the other owns it."""
    cluster = GroupScenario()
    cluster.owner(heedful_s=0.2)
    story = _begin(cluster)
    story.say("A member owns every key. Another one joins: the primary forms a view, and tells both.")
    joined = cluster.programs[1].enter(0)
    cluster.comes_to_own(joined, 30)
    story.say("The view was settled once the first had let go, 200 ms later.")
    return story.end()


@_tale
def watch_gap() -> str:
    """A watch reports every change, and says so where it cannot: after a failover."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    story = _begin(cluster)
    story.say("A watch begins with a picture. Then each change comes with what led to it.")
    one.watch(cluster.name)
    cluster.run(0.1)
    (held,) = cluster.hold(other, cluster.name)
    cluster.run(0.1)
    story.say("The primary is killed. The watch goes on at its successor, with a gap.")
    cluster.crash(cluster.primary())
    seen = one.watches[cluster.name]
    cluster.wait(lambda: seen.gaps > 0, 10)
    assert held.outcome == "held"
    return story.end()


@_tale
def release_undone_and_repeated() -> str:
    """The primary dies between the answer to a release and the message that takes the holder from the copy."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name)
    story = _begin(cluster)
    primary, backup = cluster.primary(), cluster.backup()
    story.say("The release is answered. The backup has not heard of it when the primary is killed.")
    one.give_back(held)
    cluster.step(lambda: held.outcome == "released", 5)
    cluster.silence(primary, backup, 1)
    cluster.crash(primary)
    story.say("The client repeats its latest releases at the new primary, so the lock is free there too.")
    (again,) = cluster.hold(other, cluster.name, ttl_ms=10_000)
    assert again.got_at - held.ended_at < 5 * S
    return story.end()


@_tale
def journal() -> str:
    """The only node is killed and started again on its journal: its locks are held on, and no lease is waited for."""
    cluster = Scenario(nodes=1, durability="process")
    one, other = cluster.simulation.clients
    story = _begin(cluster)
    (node,) = cluster.simulation.nodes
    story.say("A grant is written before it is answered, in the words in which it would go to a copy.")
    (held,) = cluster.hold(one, cluster.name)
    cluster.run(0.1)
    story.say("The node is killed. Its next life reads the journal, and writes that it has begun.")
    cluster.crash(node)
    cluster.run(0.2)
    node.start()
    story.say("It testifies that the former life is over. The coordinator puts it in that life's place.")
    cluster.wait(lambda: cluster.serves(node), 5)
    story.say(
        "The holder comes back, and keeps its lock under the same token. A free lock can be acquired at once."
    )
    cluster.hold(other, cluster.names(2)[1])
    cluster.run(1.5)
    assert held.outcome == "held"
    return story.end()
