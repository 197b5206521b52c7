"""One run of hostile inputs against real processes, with honest clients at work, and what must hold after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import lockring
from lockring.cluster_state import ClusterState
from lockring.net.oneshot import Dial, ask_state, dial_plain
from tests.hostile.attack import Attack, Port
from tests.hostile.guises import Guises
from tests.hostile.honest import Honest, milliseconds
from tests.hostile.processes import (
    WAIT_S,
    Failed,
    Report,
    Sample,
    Watched,
    cluster_of,
    guarded_cluster_of,
    served,
)
from tests.hostile.samples import Facts

RSS_GROWTH_MIB_MAX: Final = 48
"""How much larger a process may be at the end than after the warm-up."""

WARM_UP: Final = 0.1
"""Share of the inputs after which memory is first looked at: by then pools and caches are filled."""

_DESCRIPTORS_SPARE: Final = 2
"""More than at the start: a connection of the honest client or of a peer that was opened meanwhile."""


class _Way(NamedTuple):
    """How those that may come in do so."""

    dial: Dial
    files: dict[str, str]
    guises: Guises | None


def fuzz(*, inputs: int, seed: int, only: range | None = None, tls: bool = False) -> Report:
    """Send so many hostile inputs (or hold the conversations of some numbers), and see that all holds.

    Args:
        inputs: how many.
        seed: what they follow from.
        only: the numbers of the conversations; None for all.
        tls: whether the ports speak TLS and demand rights; the ports with gRPC are attacked too then.

    Raises:
        Failed: it does not; the text says how to repeat it.
    """
    with contextlib.ExitStack() as stack:
        way = _Way(dial_plain, {}, None)
        if tls:
            cluster, watched, guises = stack.enter_context(guarded_cluster_of(2))
            way = _Way(guises.dial, guises.honest, guises)
        else:
            cluster, watched = stack.enter_context(cluster_of(2))
        single = stack.enter_context(served(guises=way.guises))
        watched = [*watched, single]
        honest = [
            stack.enter_context(Honest(cluster.servers, "cluster", files=way.files)),
            stack.enter_context(Honest(single.addresses[0], "serve", files=way.files)),
        ]
        held = tuple(name for each in honest for name in each.names)
        ports = [port for each in watched for port in _ports(each, held, way)]
        before = {port.address: port.facts.state for port in ports if port.language == "frames"}
        attack = Attack(ports, seed, way.guises)
        samples = [[each.sample() for each in watched]]
        harm: list[str] = []
        try:
            took_s = asyncio.run(_attack(attack, watched, samples, inputs, only, way))
            report = _report(attack, watched, samples, honest, took_s)
            harm += [each for one in honest for each in one.finish()]
            harm += _changes(before, way.dial) + _growth(watched, samples, may_grow=only is None)
        except (lockring.LockringError, OSError) as error:
            harm.append(f"a server is gone: {error!r}")
            report = Report()
        harm = [trouble for each in watched for trouble in each.troubles()] + attack.harm + harm
        if tls:
            harm += [
                f"{each.name} has no refusal in its audit log"
                for each in watched
                if not each.outcomes["refused"]
            ]
        if harm:
            raise Failed(
                "\n".join(
                    [*_story(attack, watched), *report.lines, *harm[:30], _again(attack, inputs, seed, tls)]
                )
            )
        return report


def _story(attack: Attack, watched: list[Watched]) -> list[str]:
    return [
        *(each.last_words() for each in watched),
        "the last conversations, by number, port and kind, with the beginnings of their inputs:",
        *attack.recent,
    ]


def _again(attack: Attack, inputs: int, seed: int, tls: bool) -> str:
    command = f"python -m tests.hostile fuzz {'--tls ' if tls else ''}--seed {seed} --inputs {inputs}"
    return (
        f"repeat it with: {command}; or a part of it with "
        f"--only FIRST..LAST, of the conversations 0..{attack.conversations - 1}"
    )


async def _attack(
    attack: Attack,
    watched: list[Watched],
    samples: list[list[Sample]],
    inputs: int,
    only: range | None,
    way: _Way,
) -> float:
    """Attack, and add a sample of every process after the warm-up and at the end. Returns how long the attack took."""
    begun_s = time.monotonic()
    if only is not None:
        await attack.hold(only, lambda: False)
    else:
        numbers = itertools.count()
        await attack.hold(numbers, lambda: attack.inputs.total() >= inputs * WARM_UP)
        begun_s += await _quiet(attack, watched, samples, way)
        await attack.hold(numbers, lambda: attack.inputs.total() >= inputs)
    took_s = time.monotonic() - begun_s
    await _quiet(attack, watched, samples, way)
    return took_s


async def _quiet(attack: Attack, watched: list[Watched], samples: list[list[Sample]], way: _Way) -> float:
    begun_s = time.monotonic()
    await asyncio.to_thread(_settle, attack.ports, watched, samples, way)
    return time.monotonic() - begun_s


def _settle(ports: list[Port], watched: list[Watched], samples: list[list[Sample]], way: _Way) -> None:
    """Wait until nothing is left of the strangers, and take a sample of every process."""
    for address in {port.address for port in ports if port.facts.me.node and port.language == "frames"}:
        with lockring.Client(address, **way.files) as client:
            end_s = time.monotonic() + WAIT_S
            while client.locks("hostile/") and time.monotonic() < end_s:
                time.sleep(0.2)  # until the last session of a stranger has run out
    end_s = time.monotonic() + WAIT_S
    samples.append(
        [
            each.settled(first.descriptors + _DESCRIPTORS_SPARE, end_s=end_s)
            for each, first in zip(watched, samples[0], strict=True)
        ]
    )


def _ports(watched: Watched, held: tuple[str, ...], way: _Way) -> Iterator[Port]:
    tokens, is_guarded = ((), False) if way.guises is None else (way.guises.tokens, True)
    for address in watched.addresses:
        view = ask_state(address, dial=way.dial)
        name = f"{watched.name}, {view.role}" if len(watched.addresses) > 1 else watched.name
        yield Port(name, address, Facts(view.state, view.replica, held, tokens, is_guarded))
    if watched.calls:
        view = ask_state(watched.addresses[0], dial=way.dial)
        facts = Facts(view.state, view.replica, held, tokens, is_guarded)
        yield Port(f"{watched.name}, gRPC", watched.calls, facts, "calls")


def _changes(before: dict[str, ClusterState], dial: Dial) -> list[str]:
    """How members and slots differ from what they were."""
    found = []
    for address, was in before.items():
        now = ask_state(address, dial=dial).state
        if now.members != was.members:
            found.append(f"{address} has the members {now.members}, not {was.members}")
        moved = sum(a != b for a, b in zip(was.slots, now.slots, strict=True))
        if moved:
            found.append(f"{address}: {moved} slots have changed")
        if (now.cluster, now.term, now.version) != (was.cluster, was.term, was.version):
            found.append(f"{address}: the state is another, of version {now.version}, not {was.version}")
    return found


def _growth(watched: list[Watched], samples: list[list[Sample]], *, may_grow: bool) -> list[str]:
    """Processes that keep more than they should."""
    found = []
    for at, each in enumerate(watched):
        first, warm, last = samples[0][at], samples[1][at], samples[-1][at]
        grown_kib = last.rss_kib - warm.rss_kib
        if may_grow and grown_kib > RSS_GROWTH_MIB_MAX * 1024:
            found.append(f"{each.name} has grown by {grown_kib / 1024:.0f} MiB since the warm-up")
        if last.descriptors > first.descriptors + _DESCRIPTORS_SPARE:
            found.append(
                f"{each.name} has {last.descriptors} descriptors open, not {first.descriptors} as before"
            )
    return found


def _report(
    attack: Attack, watched: list[Watched], samples: list[list[Sample]], honest: list[Honest], took_s: float
) -> Report:
    report = Report()
    total = attack.inputs.total()
    kinds: Counter[str] = Counter()
    ports: Counter[str] = Counter()
    for (kind, port), count in attack.inputs.items():
        kinds[kind] += count
        ports[port] += count
    report.table(
        ("inputs", "conversations", "seconds", "inputs a second"),
        (total, attack.conversations, f"{took_s:.0f}", f"{total / max(took_s, 0.001):.0f}"),
    )
    report.table(("kind", "inputs"), *kinds.most_common())
    report.table(("port", "inputs"), *sorted(ports.items()))
    if attack.shown:
        report.table(("shown in the handshake", "conversations"), *attack.shown.most_common())
    report.table(
        ("process", "RSS at the start, after the warm-up, at the end (MiB)", "descriptors the same"),
        *(
            (
                each.name,
                " / ".join(f"{taken[at].rss_kib / 1024:.1f}" for taken in samples),
                " / ".join(f"{taken[at].descriptors}" for taken in samples),
            )
            for at, each in enumerate(watched)
        ),
    )
    report.table(
        ("honest client", "locks acquired and released", "median / 99 % / longest"),
        *(
            (each.names[0].split("/")[1], len(each.latencies_s), milliseconds(each.latencies_s))
            for each in honest
        ),
    )
    return report
