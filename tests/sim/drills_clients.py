"""Drills for what clients and nodes say to each other."""

from __future__ import annotations

from tests.sim.scenarios import TTL_MS, Scenario
from tests.sim.switches import drill, drill_by_chance
from tests.sim.world import S


@drill_by_chance(range(1, 9))
def list_of_one_share(seed: int) -> None:
    """A client hears of a planned move of its lock before the old primary does, and lists there just then."""
    cluster = Scenario(nodes=2, clients=1, late_nodes=1, seed=seed)
    client = cluster.simulation.clients[0]
    for number in range(20):
        client.take(f"lock-{number}", ttl_ms=300)
    cluster.run(1)
    coordinator = cluster.simulation.coordinators[0]
    cluster.simulation.add_node()
    for _ in range(3000):
        cluster.run(0.001)
        for node in cluster.simulation.nodes:
            core = node.core
            if core is not None and any(
                s.learner is not None and s.primary == core.replica for s in core.state.slots
            ):
                cluster.simulation.network.cut(coordinator, node, S)


@drill
def blind_to_another_cluster() -> None:
    """All servers are made anew under their addresses by a person who says that there was nothing before."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (held,) = cluster.hold(one, cluster.name, ttl_ms=30_000)
    cluster.make_anew(new_cluster=True)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: wanted.outcome == "held", 20)
    assert held.outcome == "other-cluster"


@drill
def lost_from_anyone() -> None:
    """A primary that its clients can reach, but nobody else, runs out of what lives on at its successor."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    held = [client.take(f"lock-{number}", ttl_ms=3000) for number in range(20)]
    cluster.run(1)
    primary = cluster.primary()
    for process in [*cluster.simulation.nodes, *cluster.simulation.coordinators]:
        if process is not primary:
            cluster.cut(primary, process, 25)
    cluster.run(20)
    assert all(task.outcome == "held" for task in held)


@drill
def unlisted_stays() -> None:
    """A release is confirmed, and its primary dies before the backup hears of it; its client has other locks there."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    first, second = cluster.names(2)
    held, given = one.take(first, ttl_ms=TTL_MS), one.take(second, ttl_ms=TTL_MS)
    cluster.wait(lambda: given.outcome == "held", 1)
    cluster.silence(cluster.primary(), cluster.backup(), 60)
    one.give_back(given)
    cluster.wait(lambda: given.outcome == "released", 1)
    cluster.crash(cluster.primary())
    wanted = other.take(second, ttl_ms=TTL_MS)
    cluster.run(15)
    cluster.demand(wanted.outcome == "held", "P7", f"{second!r} was given back, and nobody gets it")
    assert held.outcome == "held"


@drill
def released_once() -> None:
    """A release is confirmed, and its primary dies before the backup hears of it; its client has nothing else."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    (given,) = cluster.hold(one, cluster.name)
    cluster.silence(cluster.primary(), cluster.backup(), 60)
    cluster.let_go(one, given)
    cluster.crash(cluster.primary())
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(6)
    cluster.demand(wanted.outcome == "held", "P7", f"{cluster.name!r} was given back, and nobody gets it")


@drill
def wait_begins_anew() -> None:
    """The primary dies, and who waited longest reaches its successor last."""
    cluster = Scenario(clients=3)
    one, early, late = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    first = early.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    second = late.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.cut(early, cluster.backup(), 5)
    cluster.crash(cluster.primary())
    cluster.run(9)
    one.give_back(held)
    cluster.wait(lambda: "held" in (first.outcome, second.outcome), 2)
    cluster.demand(first.outcome == "held", "P5", "who waited longer, as its client knows, is passed over")


@drill
def readers_pass() -> None:
    """Readers come and go while a writer waits."""
    cluster = Scenario(clients=3)
    reader, writer, other = cluster.simulation.clients
    shared = reader.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.wait(lambda: shared.outcome == "held", 1)
    alone = writer.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    later = other.take(cluster.name, ttl_ms=TTL_MS, shared=True)
    cluster.run(0.5)
    cluster.demand(later.outcome == "waiting", "P5", "a reader passes a writer, who may wait for ever")
    reader.give_back(shared)
    cluster.wait(lambda: alone.outcome == "held", 1)


@drill
def broken_renewed() -> None:
    """An operator ends a lease, and what its holder is told is lost with the connection."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=3000)
    cluster.wait(lambda: held.outcome == "held", 1)
    wanted = other.take(cluster.name, ttl_ms=3000)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.silence(primary, one, 60)
    cluster.break_lease(held)
    cluster.run(0.1)
    cluster.break_connections(one, primary)
    cluster.unsilence(primary, one)
    cluster.wait(lambda: wanted.outcome == "held", 5)
    assert held.outcome == "expired", "its client finds out when it renews"


@drill
def broken_here_alone() -> None:
    """An operator ends a lease, and the primary dies before the holder has heard of it."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    held = one.take(cluster.name, ttl_ms=TTL_MS)
    cluster.wait(lambda: held.outcome == "held", 1)
    wanted = other.take(cluster.name, ttl_ms=TTL_MS)
    cluster.run(0.5)
    primary = cluster.primary()
    cluster.silence(primary, one, 60)
    cluster.break_lease(held)
    cluster.run(0.1)
    cluster.crash(primary)
    cluster.run(20)
    cluster.demand(wanted.outcome == "held", "P7", "a lease that was ended is renewed by the next primary")
    assert held.outcome == "expired", "its client finds out when it renews"


@drill
def parked_for_good() -> None:
    """A request reaches a successor that may not serve yet."""
    cluster = Scenario(clients=1)
    client, successor = cluster.simulation.clients[0], cluster.backup()
    client.take(cluster.name_at(successor), ttl_ms=TTL_MS)
    cluster.run(0.5)
    cluster.crash(cluster.primary())
    cluster.step(lambda: cluster.primary() is successor, 5)
    cluster.wait(lambda: cluster.knows(successor), 1)
    assert not cluster.reigns(successor)
    wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=5000)
    cluster.wait(lambda: cluster.serves(successor), 5)
    cluster.run(0.5)
    cluster.demand(
        wanted.outcome == "held", "P7", "a free lock that is served is not given to who asked early"
    )


@drill
def session_of_many_ttls() -> None:
    """A client with a short and a long lease is cut off from its new primary for longer than the short one."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    first, second = cluster.names(2)
    client.take(first, ttl_ms=1000)
    cluster.run(0.2)
    client.take(second, ttl_ms=TTL_MS)
    cluster.run(4)
    cluster.cut(client, cluster.backup(), 7)
    cluster.crash(cluster.primary())
    cluster.run(12)


@drill
def old_connections_speak() -> None:
    """What a client has listed arrives on its former connection, when it has got more on the present one."""
    cluster = Scenario()
    one, other = cluster.simulation.clients
    first, second = cluster.names(2)
    one.take(first, ttl_ms=1500)
    blocks = other.take(second, ttl_ms=TTL_MS)
    cluster.wait(lambda: blocks.outcome == "held", 1)
    with cluster.no_room_for_waiters():
        wanted = one.take(second, ttl_ms=1500)
        # It is refused, and sent nowhere while it pauses: so it is not in the list, and the link ends before it is sent.
        cluster.wait(lambda: cluster.pause_left_s(one, wanted) > 0.7, 10)
        cluster.delay(one, cluster.primary(), 2.5)
        one.list_all()
        cluster.run(0.01)
    other.give_back(blocks)
    cluster.wait(lambda: wanted.outcome == "held", 2.4)
    cluster.run(3)
    assert wanted.outcome == "held"


@drill
def covered_by_all() -> None:
    """A client renews one lock at a node, and hears before the answer that another lock has come there; it has not yet."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, coordinator = cluster.simulation.clients[0], cluster.coordinator
    former, successor, third = cluster.primary(), cluster.backup(), cluster.third()
    client.take(cluster.name, ttl_ms=1000)
    cluster.run(0.2)
    client.take(cluster.name_at(successor), ttl_ms=1000)
    cluster.run(0.3)
    former.drain()
    cluster.run(0.5)
    for process in (former, successor, third, client):
        cluster.silence(coordinator, process, 60)
    cluster.wait(lambda: cluster.primary() is successor, 5)
    cluster.delay(client, successor, 1 / 3)
    cluster.run(0.34)
    cluster.delay(client, successor, 0.05)
    cluster.step(lambda: cluster.is_asking(client, successor), 1)
    for process in (successor, third):
        cluster.silence(process, former, 60)
    cluster.unsilence(coordinator, successor)
    cluster.run(3)


@drill
def agreed_without_right() -> None:
    """A client reaches nobody but the former primary, who reaches nobody but the client."""
    cluster = Scenario(clients=1)
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.hold(client, cluster.name, ttl_ms=3000)
    for process in [*cluster.simulation.nodes, *cluster.simulation.coordinators]:
        if process is not primary:
            cluster.cut(primary, process, 25)
            cluster.cut(client, process, 25)
    cluster.run(15)


@drill
def session_only() -> None:
    """As for `agreed_without_right`."""
    agreed_without_right()


@drill
def client_from_response() -> None:
    """A grant comes late, and nothing more gets from its client to the node."""
    cluster = Scenario(clients=1)
    cluster.be_patient()
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.let_go(client, *cluster.hold(client, cluster.name, ttl_ms=1000))
    cluster.hold(client, cluster.name_at(cluster.backup()), ttl_ms=1000)
    cluster.delay(primary, client, 0.7)
    client.take(cluster.name, ttl_ms=1000)
    cluster.run(0.05)
    cluster.silence(client, primary, 60)
    cluster.run(3)


@drill
def grant_by_session() -> None:
    """As for `client_from_response`: meanwhile the client has renewed what it has elsewhere."""
    client_from_response()


@drill
def revive() -> None:
    """A client is frozen while a deadline passes, and the answer that would have moved it has arrived by then."""
    cluster = Scenario(clients=1)
    client, primary = cluster.simulation.clients[0], cluster.primary()
    cluster.hold(client, cluster.name, ttl_ms=300)
    cluster.run(0.5)
    cluster.step(lambda: cluster.is_asking(client, primary), 1)
    client.pause(250_000_000)
    cluster.run(1)


@drill
def release_by_key() -> None:
    """A release arrives a second time, when its client has the lock again."""
    cluster = Scenario(clients=1)
    client = cluster.simulation.clients[0]
    (first,) = cluster.hold(client, cluster.name)
    cluster.let_go(client, first)
    cluster.hold(client, cluster.name)
    cluster.release_again(client, first)
    cluster.run(0.5)


@drill
def newest_first() -> None:
    """Two wait for what a third one holds."""
    cluster = Scenario(clients=3)
    one, early, late = cluster.simulation.clients
    for client in (early, late):
        cluster.let_go(client, *cluster.hold(client, cluster.name))
    (held,) = cluster.hold(one, cluster.name)
    for client in (early, late):
        client.take(cluster.name, ttl_ms=TTL_MS)
        cluster.run(0.5)
    one.give_back(held)
    cluster.run(1)


@drill
def idle_link_trusted() -> None:
    """A client's connections are forgotten on the way while it does nothing; then it wants a free lock, for some seconds at most."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    for both in (True, False):
        (given,) = cluster.hold(client, cluster.name)
        cluster.let_go(client, given)
        cluster.run(3)
        for end in list(client.ends.values()):
            cluster.simulation.network.hush(end, both=both)
        wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=900)
        cluster.run(1.5)
        cluster.demand(
            wanted.outcome == "held", "P7", f"{cluster.name!r} is free, and who wants it does not get it"
        )
        cluster.let_go(client, wanted)


@drill
def held_by_hearsay() -> None:
    """The coordinator has been gone for longer than its lease, and a client wants a free lock."""
    cluster = Scenario(clients=1)
    (client,) = cluster.simulation.clients
    for coordinator in cluster.simulation.coordinators:
        for node in cluster.simulation.nodes:
            cluster.cut(node, coordinator, 80)
    cluster.run(36)
    wanted = client.take(cluster.name, ttl_ms=TTL_MS, wait_ms=3_000)
    cluster.run(5)
    cluster.demand(
        wanted.outcome == "unavailable", "P7", f"{cluster.name!r} is free, and is said to be {wanted.outcome}"
    )
