"""The aims of lockring, as ratios and figures that a run either reaches or misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from bench.figures import Spread, Summary
from bench.peers import OURS
from bench.workloads.base import ONE_CORE
from bench.workloads.durability import ONE_CLIENT, ONE_NODE, OVERLAPPING, SYNCED, THREE_NODES
from bench.workloads.killed import CLIENT_KILLED, CLIENT_TOLD, COMMAND, HOLDER, PRIMARY
from bench.workloads.many import MILLION
from bench.workloads.single import UNPINNED

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
    value: Callable[[Summary], Spread | None]

    def verdict(self, summary: Summary) -> Verdict:
        """Return whether a run reaches the aim."""
        value = self.value(summary)
        if value is None:
            return "not measured"
        is_reached = value.median <= self.bound if self.sense == "at most" else value.median >= self.bound
        return "reached" if is_reached else "missed"


_SYNCED_NAMES: Final = {"redis+sync": "synced Redis", "zookeeper": "ZooKeeper", "etcd": "etcd"}


Value = Callable[[Summary], Spread | None]
"""Returns the figure of a run, or None if it was not measured."""


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
    sent = summary.get("many", MILLION, "lockring", "sent_per_s")
    received = summary.get("many", MILLION, "lockring", "received_per_s")
    if sent is None or received is None:
        return None
    return Spread(
        sent.median + received.median, sent.low + received.low, sent.high + received.high, sent.rounds
    )


def _targets() -> Iterator[Target]:
    one, three = "lockring", "lockring-3"
    for variant in (UNPINNED, ONE_CORE):
        pair = f"acquire and release, one blocking client, {variant}"
        yield Target(
            f"{pair}: part of redis-py's time",
            "at most",
            0.6,
            "",
            _of("single", variant, "median_us", one, "redis"),
        )
        yield Target(
            f"{pair}: part of PostgreSQL's time",
            "at most",
            1.0,
            "",
            _of("single", variant, "median_us", one, "postgres"),
        )
        yield Target(
            f"{pair}, three nodes: part of redis-py's time",
            "at most",
            1.0,
            "",
            _of("single", variant, "median_us", three, "redis"),
        )
    for variant in ("32", "128"):
        yield Target(
            f"{variant} overlapping: pairs/s, multiple of the best peer's",
            "at least",
            8,
            "",
            _of_best(variant, one),
        )
        yield Target(
            f"{variant} overlapping, three nodes: pairs/s, multiple of the best peer's",
            "at least",
            4,
            "",
            _of_best(variant, three),
        )
    for variant in ("2", "8"):
        fight = f"{variant} processes on one lock"
        name = "to_another_per_s"
        yield Target(
            f"{fight}: hand-overs/s, multiple of PostgreSQL's",
            "at least",
            1,
            "",
            _of("fight", variant, name, one, "postgres"),
        )
        yield Target(
            f"{fight}: hand-overs/s, multiple of redis-py's",
            "at least",
            100,
            "",
            _of("fight", variant, name, one, "redis"),
        )
        yield Target(
            f"{fight}: time of a hand-over, part of PostgreSQL's",
            "at most",
            1.0,
            "",
            _of("fight", variant, "median_us", one, "postgres"),
        )
        yield Target(
            f"{fight}: most grants of a process, multiple of the fewest",
            "at most",
            1.05,
            "",
            _plain("fight", variant, one, "fairness"),
        )
    yield Target(
        "taking turns: part of PostgreSQL's time",
        "at most",
        1.0,
        "",
        _of("relay", "2", "median_us", one, "postgres"),
    )
    yield Target(
        "taking turns: part of redis-py's time",
        "at most",
        1 / 50,
        "",
        _of("relay", "2", "median_us", one, "redis"),
    )
    yield Target(
        "a million locks: memory of the node",
        "at most",
        450,
        "B each",
        _plain("many", MILLION, one, "bytes_per_lock"),
    )
    yield Target(
        "a million locks: acquired", "at least", 19_000, "/s", _plain("many", MILLION, one, "locks_per_s")
    )
    yield Target("a million locks: messages to keep them", "at most", 10, "/s", _messages)
    yield Target(
        "primary killed: its locks acquired again",
        "at most",
        3,
        "s",
        _plain("killed", PRIMARY, three, "seconds_most"),
    )
    yield Target(
        "command under `lockring lock` killed", "at most", 0.1, "s", _plain("killed", COMMAND, one, "seconds")
    )
    for how, variant in (("terminated (SIGTERM)", CLIENT_TOLD), ("killed (SIGKILL)", CLIENT_KILLED)):
        yield Target(
            f"`lockring lock` itself {how}", "at most", 0.1, "s", _plain("killed", variant, one, "seconds")
        )
    yield Target(
        "holder killed, with a TTL of 4 s", "at most", 4.2, "s", _plain("killed", HOLDER, one, "seconds")
    )
    yield Target(
        "a node joins: acquire meanwhile, p99",
        "at most",
        50_000,
        "µs",
        _plain("rebalance", "3 to 4 nodes", three, "during_p99_us"),
    )


def _durability_targets() -> Iterator[Target]:
    for variant in (ONE_CLIENT, ONE_CORE, *OVERLAPPING):
        for (none, process, disk), nodes in ((ONE_NODE, ""), (THREE_NODES, ", three nodes")):
            pair = f"durability, {variant}{' overlapping' if variant in OVERLAPPING else ''}{nodes}"
            yield Target(
                f"{pair}, `process`: multiple of the time with `none`",
                "at most",
                1.1,
                "",
                _of("durability", variant, "median_us", process, none),
            )
            if variant == ONE_CORE:  # a wait for the disk takes no core
                continue
            for peer in SYNCED:
                yield Target(
                    f"{pair}, `disk`: part of {_SYNCED_NAMES[peer]}'s time",
                    "at most",
                    1.0,
                    "",
                    _of("durability", variant, "median_us", disk, peer),
                )


TARGETS: Final = tuple(_targets())
DURABILITY_TARGETS: Final = tuple(_durability_targets())
