"""The aims of lockring, as ratios and figures that a run either reaches or misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from bench.beside import FLOOR
from bench.figures import Spread, Summary, ratio, spread
from bench.peers import OURS
from bench.workloads.base import ONE_CORE
from bench.workloads.doors import GUARDED, OPEN, own_work_us
from bench.workloads.durability import ONE_CLIENT, ONE_NODE, OVERLAPPING, SYNCED, THREE_NODES
from bench.workloads.killed import CLIENT_KILLED, CLIENT_TOLD, COMMAND, HOLDER, PRIMARY
from bench.workloads.many import MILLION
from bench.workloads.single import UNPINNED

Value = Callable[[Summary], Spread | None]
"""Returns the figure of a run, or None if it was not measured."""

Verdict = Literal["reached", "missed", "not measured"]


class Target(NamedTuple):
    """One aim.

    Attributes:
        what: the aim in words.
        sense: whether the figure must be at most or at least the bound.
        bound: the bound.
        unit: the unit of figure and bound; "" for a ratio.
        value: returns the figure of a run, or None if it was not measured.
    """

    what: str
    sense: Literal["at most", "at least"]
    bound: float
    unit: str
    value: Value

    def verdict(self, summary: Summary) -> Verdict:
        """Return whether a run reaches the aim."""
        value = self.value(summary)
        if value is None:
            return "not measured"
        is_reached = value.median <= self.bound if self.sense == "at most" else value.median >= self.bound
        return "reached" if is_reached else "missed"


COMPILED: Final = ("lockring+compiled", "lockring-3+compiled")
"""One node and three of the build that the aims are about, unless they say otherwise."""

_SYNCED_NAMES: Final = {
    "redis+sync": "synced Redis",
    "redis+wait+sync": "synced Redis with a replica",
    "zookeeper": "ZooKeeper",
    "etcd": "etcd",
}


def _of(workload: str, variant: str, name: str, ours: str, theirs: str) -> Value:
    """Return a function for our figure as a multiple of theirs."""
    return lambda summary: summary.times(workload, variant, (ours, theirs), name)


def _plain(workload: str, variant: str, peer: str, name: str) -> Value:
    return lambda summary: summary.get(workload, variant, peer, name)


def _of_best(variant: str, ours: str) -> Value:
    """Return a function for our pairs per second as a multiple of the best peer's."""

    def value(summary: Summary) -> Spread | None:
        multiples = [
            found
            for peer in summary.peers("overlap", variant)
            if peer not in OURS
            and (found := summary.times("overlap", variant, (ours, peer), "pairs_per_s")) is not None
        ]
        return min(multiples, key=lambda each: each.median, default=None)

    return value


def _messages(summary: Summary) -> Spread | None:
    """Return the messages per second that keep a million locks."""
    sent = summary.get("many", MILLION, COMPILED[0], "sent_per_s")
    received = summary.get("many", MILLION, COMPILED[0], "received_per_s")
    if sent is None or received is None:
        return None
    return Spread(
        sent.median + received.median, sent.low + received.low, sent.high + received.high, sent.rounds
    )


def _at_most(what: str, bound: float, value: Value, unit: str = "") -> Target:
    return Target(what, "at most", bound, unit, value)


def _at_least(what: str, bound: float, value: Value, unit: str = "") -> Target:
    return Target(what, "at least", bound, unit, value)


def _targets() -> Iterator[Target]:
    yield from _single_targets()
    yield from _doors_targets()
    yield from _overlap_targets()
    yield from _contention_targets()
    yield from _size_targets()
    yield from _failure_targets()


def _single_targets() -> Iterator[Target]:
    one, three = COMPILED
    for variant, of_redis, of_postgres in ((ONE_CORE, 0.5, 0.65), (UNPINNED, 0.35, 0.45)):

        def times(ours: str, theirs: str, variant: str = variant) -> Value:
            return _of("single", variant, "median_us", ours, theirs)

        pair = f"acquire and release, one blocking client, {variant}"
        yield _at_most(f"{pair}: part of redis-py's time", of_redis, times(one, "redis"))
        yield _at_most(f"{pair}: part of PostgreSQL's time", of_postgres, times(one, "postgres"))
        if variant == ONE_CORE:
            yield _at_most(f"{pair}: round trips of the floor", 6, times(one, FLOOR))
        yield _at_most(f"{pair}, interpreted: part of redis-py's time", 0.75, times("lockring", "redis"))
        three_nodes = f"{pair}, three nodes"
        yield _at_most(
            f"{three_nodes}: part of redis-py's time, without a replica", 1.0, times(three, "redis")
        )
        yield _at_most(f"{three_nodes}: part of redis-py's time, with one", 0.5, times(three, "redis+wait"))
        yield _at_most(f"{three_nodes}: part of three etcd members' time", 0.1, times(three, "etcd-3"))


def _doors_targets() -> Iterator[Target]:
    for name, plain, guarded in zip(("interpreted", "compiled"), OPEN, GUARDED, strict=True):
        yield _at_most(
            f"acquire and release, {ONE_CORE}, {name}: own work with TLS and rights, part of that without",
            1.15,
            _own_work(plain, guarded),
        )


def _own_work(plain: str, guarded: str) -> Value:
    """Return a function for our own work with TLS and rights, as part of that without."""

    def value(summary: Summary) -> Spread | None:
        found = ratio(own_work_us(summary, guarded), own_work_us(summary, plain))
        return None if found is None else spread([found])

    return value


def _overlap_targets() -> Iterator[Target]:
    one, three = COMPILED
    for variant, multiple, multiple_of_three in (("32", 12, 5), ("128", 18, 8)):
        rate = "pairs/s, multiple of the best peer's"
        yield _at_least(f"{variant} overlapping: {rate}", multiple, _of_best(variant, one))
        yield _at_least(
            f"{variant} overlapping, three nodes: {rate}", multiple_of_three, _of_best(variant, three)
        )


def _contention_targets() -> Iterator[Target]:
    one, _ = COMPILED
    for variant in ("2", "8"):

        def times(name: str, theirs: str, variant: str = variant) -> Value:
            return _of("fight", variant, name, one, theirs)

        fight = f"{variant} processes on one lock"
        rate = "to_another_per_s"
        yield _at_least(f"{fight}: hand-overs/s, multiple of PostgreSQL's", 1, times(rate, "postgres"))
        yield _at_least(f"{fight}: hand-overs/s, multiple of redis-py's", 100, times(rate, "redis"))
        yield _at_most(
            f"{fight}: time of a hand-over, part of PostgreSQL's", 1, times("median_us", "postgres")
        )
        yield _at_most(
            f"{fight}: most grants of a process, multiple of the fewest",
            1.05,
            _plain("fight", variant, one, "fairness"),
        )
    for peer, name, bound in (("postgres", "PostgreSQL", 1.0), ("redis", "redis-py", 1 / 50)):
        yield _at_most(
            f"taking turns: part of {name}'s time", bound, _of("relay", "2", "median_us", one, peer)
        )


def _size_targets() -> Iterator[Target]:
    one, three = COMPILED
    yield _at_most(
        "a million locks: memory of the node", 400, _plain("many", MILLION, one, "bytes_per_lock"), "B each"
    )
    yield _at_least("a million locks: acquired", 80_000, _plain("many", MILLION, one, "locks_per_s"), "/s")
    yield _at_most("a million locks: messages to keep them", 10, _messages, "/s")
    for name, figure, bound in (("p99", "during_p99_us", 10_000), ("longest", "during_max_us", 50_000)):
        yield _at_most(
            f"a node joins: acquire meanwhile, {name}",
            bound,
            _plain("rebalance", "3 to 4 nodes", three, figure),
            "µs",
        )


def _failure_targets() -> Iterator[Target]:
    one, three = "lockring", "lockring-3"

    def seconds(variant: str, peer: str = one, name: str = "seconds") -> Value:
        return _plain("killed", variant, peer, name)

    yield _at_most(
        "primary killed: its locks acquired again", 3, seconds(PRIMARY, three, "seconds_most"), "s"
    )
    yield _at_most("command under `lockring lock` killed", 0.1, seconds(COMMAND), "s")
    yield _at_most("`lockring lock` itself terminated (SIGTERM)", 0.1, seconds(CLIENT_TOLD), "s")
    yield _at_most("`lockring lock` itself killed (SIGKILL)", 0.1, seconds(CLIENT_KILLED), "s")
    yield _at_most("holder killed, with a TTL of 4 s", 4.2, seconds(HOLDER), "s")


def _durability_targets() -> Iterator[Target]:
    for variant in (ONE_CLIENT, ONE_CORE, *OVERLAPPING):
        for (none, process, disk), nodes in ((ONE_NODE, ""), (THREE_NODES, ", three nodes")):
            pair = f"durability, {variant}{' overlapping' if variant in OVERLAPPING else ''}{nodes}"
            yield _at_most(
                f"{pair}, `process`: multiple of the time with `none`",
                1.1,
                _of("durability", variant, "median_us", process, none),
            )
            if variant == ONE_CORE:  # a wait for the disk takes no core
                continue
            for peer in SYNCED:
                yield _at_most(
                    f"{pair}, `disk`: part of {_SYNCED_NAMES[peer]}'s time",
                    1.0,
                    _of("durability", variant, "median_us", disk, peer),
                )


TARGETS: Final = tuple(_targets())
DURABILITY_TARGETS: Final = tuple(_durability_targets())
