"""The figures of a run as Markdown tables, and their place in a page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.beside import BESIDE, FLOOR, SYNC, TLS_PAIR
from bench.figures import Spread, Summary
from bench.peers import OURS, PEERS
from bench.results import Results
from bench.targets import DURABILITY_TARGETS, TARGETS, Target
from bench.workloads.base import ONE_CORE
from bench.workloads.table import WORKLOADS


class NoMarkers(ValueError):
    """The page has no place for figures."""


class Part(NamedTuple):
    """Figures that stand together in a page, between markers of their own.

    Attributes:
        name: the name in the markers.
        workloads: the workloads of the figures, in order.
        targets: the aims below them.
    """

    name: str
    workloads: tuple[str, ...]
    targets: tuple[Target, ...]

    @property
    def begin(self) -> str:
        """The marker before the figures."""
        return f"<!-- {self.name} -->"

    @property
    def end(self) -> str:
        """The marker after the figures."""
        return f"<!-- /{self.name} -->"

    def is_in(self, results: Results) -> bool:
        """Return whether a run has measured any of it."""
        return any(each.workload in self.workloads for each in results.measurements)


DURABILITY: Final = Part("durability", ("durability",), DURABILITY_TARGETS)
PARTS: Final = (
    Part("figures", tuple(name for name in WORKLOADS if name not in DURABILITY.workloads), TARGETS),
    DURABILITY,
)


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: title of the column.
        name: name of the figure.
        scale: the factor from figure to cell.
        has_range: whether the rounds' range stands beside the median.
        of: the figure is given as a multiple of this peer's; "" for the figure itself.
    """

    title: str
    name: str
    scale: float = 1.0
    has_range: bool = False
    of: str = ""


COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "single": (
        Column("median µs", "median_us", has_range=True),
        Column("p99 µs", "p99_us"),
        Column("pairs/s", "pairs_per_s"),
        Column("CPU µs server", "server_cpu_us"),
        Column("CPU µs client", "client_cpu_us"),
        Column("× floor", "median_us", of=FLOOR),
    ),
    "doors": (
        Column("median µs", "median_us", has_range=True),
        Column("p99 µs", "p99_us"),
        Column("pairs/s", "pairs_per_s"),
        Column("CPU µs server", "server_cpu_us"),
        Column("CPU µs client", "client_cpu_us"),
        Column("× raw TLS", "median_us", of=TLS_PAIR),
    ),
    "overlap": (
        Column("pairs/s", "pairs_per_s", has_range=True),
        Column("median ms", "median_us", 1e-3),
        Column("p99 ms", "p99_us", 1e-3),
        Column("CPU µs server", "server_cpu_us"),
        Column("CPU µs client", "client_cpu_us"),
    ),
    "fight": (
        Column("to another/s", "to_another_per_s", has_range=True),
        Column("grants/s", "grants_per_s"),
        Column("hand-over µs", "median_us", has_range=True),
        Column("p99 µs", "p99_us"),
        Column("× floor", "median_us", of=FLOOR),
        Column("most/fewest", "fairness"),
        Column("overlaps", "overlaps"),
    ),
    "relay": (
        Column("median ms", "median_us", 1e-3, has_range=True),
        Column("p99 ms", "p99_us", 1e-3),
        Column("× floor", "median_us", of=FLOOR),
    ),
    "many": (
        Column("held", "held"),
        Column("seconds", "seconds"),
        Column("locks/s", "locks_per_s"),
        Column("server B/lock", "bytes_per_lock"),
        Column("sent/s", "sent_per_s"),
        Column("received/s", "received_per_s"),
        Column("renewals/s needed", "renewals_needed_per_s"),
    ),
    "killed": (
        Column("seconds", "seconds", has_range=True),
        Column("first", "seconds_least"),
        Column("last", "seconds_most"),
    ),
    "rebalance": (
        Column("locks held", "held"),
        Column("lost", "lost"),
        Column("move s", "seconds", has_range=True),
        Column("before: median µs", "before_median_us"),
        Column("p99 µs", "before_p99_us"),
        Column("max µs", "before_max_us"),
        Column("meanwhile: median µs", "during_median_us"),
        Column("p99 µs", "during_p99_us"),
        Column("max µs", "during_max_us"),
    ),
    "instructions": (
        Column("client", "client_instructions"),
        Column("server", "server_instructions"),
        Column("both", "both_instructions"),
        Column("system calls: client", "client_syscalls"),
        Column("server", "server_syscalls"),
    ),
    "durability": (
        Column("median µs", "median_us", has_range=True),
        Column("p99 µs", "p99_us"),
        Column("pairs/s", "pairs_per_s", has_range=True),
        Column("CPU µs server", "server_cpu_us"),
        Column("CPU µs client", "client_cpu_us"),
        Column("× a sync", "median_us", of=SYNC),
    ),
}

_PLAIN: Final = Column("measured", "", has_range=True)

COMPARED: Final = {
    "single": "median_us",
    "doors": "median_us",
    "overlap": "pairs_per_s",
    "fight": "to_another_per_s",
    "relay": "median_us",
    "instructions": "both_instructions",
    "durability": "median_us",
}
"""The figure of each workload that compares the peers with lockring on one node."""


def number(value: float) -> str:
    """Return a figure with three significant digits, in ordinary notation."""
    if value == 0:
        return "0"
    if math.isinf(value):
        return "∞"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.095 else f"{value:.2g}"


def cell(found: Spread | None, column: Column) -> str:
    """Return one figure of a table."""
    if found is None:
        return "–"
    text = number(found.median * column.scale)
    if column.has_range and found.rounds > 1:
        text += f" ({number(found.low * column.scale)}–{number(found.high * column.scale)})"
    return text


def tables(results: Results) -> str:
    """Return all tables of a run."""
    return "\n\n".join(tables_of(part, results) for part in PARTS if part.is_in(results))


def tables_of(part: Part, results: Results) -> str:
    """Return the tables of a part of a run."""
    summary = Summary(results.measurements)
    parts = [_environment(part, results)]
    for name in part.workloads:
        for variant in summary.variants(name):
            parts.append(f"**{WORKLOADS[name].title}: {variant}**")
            parts.append(_table(summary, name, variant))
            notes = [
                f"{TITLES[peer]}: {note}."
                for peer in _in_order(summary.peers(name, variant))
                for note in summary.notes(name, variant, peer)
            ]
            if notes:
                parts.append("\n".join(f"- {note}" for note in notes))
    parts.append("**Aims**")
    parts.append(_aims(summary, part.targets))
    if results.left_out:
        parts.append("**Left out**")
        parts.append("\n".join(_item(sentence) for sentence in results.left_out))
    return "\n\n".join(parts)


def _item(sentence: str) -> str:
    """Return an item of a list, in lines of up to 120 characters: an error may be long."""
    return textwrap.fill(f"- {sentence}", 120, subsequent_indent="  ", break_on_hyphens=False)


TITLES: Final = {
    **{name: peer.title for name, peer in PEERS.items()},
    **{name: beside.title for name, beside in BESIDE.items()},
}
"""The titles of all rows, in their order."""


def _environment(part: Part, results: Results) -> str:
    where = results.environment
    versions = ", ".join(f"{name} {version}" for name, version in where.versions.items())
    rounds = 1 + max(
        (each.round for each in results.measurements if each.workload in part.workloads), default=0
    )
    return "\n".join(
        [
            f"{where.date}, {where.machine}, {where.cores} cores.",
            f"All clients, and lockring's servers, run on Python {where.python}.",
            f"{rounds} rounds: each figure is their median, with their range in brackets.",
            *_waiting(part, results),
            *([f"The servers' files: {where.disk}."] if where.disk and part == DURABILITY else []),
            *textwrap.wrap(f"Versions: {versions}.", 120, break_on_hyphens=False),
        ]
    )


def _waiting(part: Part, results: Results) -> list[str]:
    """Return a line on the processor time of servers that waited for their turn on the same cores."""
    shares = [
        each.values["others_share"]
        for each in results.measurements
        if each.workload in part.workloads and each.variant != ONE_CORE and "others_share" in each.values
    ]
    return (
        [f"Servers and clients that waited for their turn took up to {max(shares):.1%} of a core."]
        if shares
        else []
    )


def _table(summary: Summary, workload: str, variant: str) -> str:
    peers = _in_order(summary.peers(workload, variant))

    def found(peer: str, column: Column) -> Spread | None:
        if column.of:
            return summary.times(workload, variant, (peer, column.of), column.name)
        return summary.get(workload, variant, peer, column.name)

    columns = [
        column for column in COLUMNS[workload] if any(found(peer, column) is not None for peer in peers)
    ]
    compared = COMPARED.get(workload)
    heads = ["", *(column.title for column in columns), *(["× lockring"] if compared else [])]
    rows = []
    for peer in peers:
        cells = [cell(found(peer, column), column) for column in columns]
        if compared:
            times = Column("× lockring", compared, has_range=True, of=OURS[0])
            cells.append(cell(found(peer, times) if peer != OURS[0] else None, times))
        rows.append([TITLES[peer], *cells])
    return _markdown(heads, rows)


def _aims(summary: Summary, targets: Iterable[Target]) -> str:
    rows = []
    for target in targets:
        value = target.value(summary)
        unit = f" {target.unit}" if target.unit else ""
        rows.append(
            [
                target.what,
                f"{target.sense} {number(target.bound)}{unit}",
                cell(value, _PLAIN) + ("" if value is None else unit),
                target.verdict(summary),
            ]
        )
    return _markdown(["", "aim", "measured", ""], rows)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _in_order(peers: Sequence[str]) -> list[str]:
    return [peer for peer in TITLES if peer in peers]


def insert(page: str, part: Part, text: str) -> str:
    """Return the page with the text between a part's markers, in place of the old one.

    Raises:
        NoMarkers: the page has none.
    """
    before, begin, rest = page.partition(part.begin)
    _, end, after = rest.partition(part.end)
    if not begin or not end:
        raise NoMarkers(f"the page has no {part.begin} … {part.end}")
    return f"{before}{part.begin}\n\n{text}\n\n{part.end}{after}"


def write(results: Results, path: Path, *, picture: str = "") -> None:
    """Put the figures of a run into a page; parts that were not measured stay as they are.

    Args:
        results: the results of the run.
        path: the page.
        picture: the picture above the first part, as a path relative to the page; "" for none.

    Raises:
        NoMarkers: the page has no place for a part.
    """
    page = path.read_text(encoding="utf-8")
    for part in PARTS:
        if part.is_in(results):
            text = tables_of(part, results)
            if picture and part == PARTS[0]:
                text = f"![lockring and its peers]({picture})\n\n{text}"
            page = insert(page, part, text)
    path.write_text(page, encoding="utf-8")
