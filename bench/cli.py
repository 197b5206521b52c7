"""The command line: measure, and report earlier measurements."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console

from bench import plot, report, results
from bench.install import prepare
from bench.peers import PEERS
from bench.restart import measure as measure_restarts
from bench.run import Busy, check_quiet, measure_all, plan, with_rounds
from bench.scale import SCALES
from bench.workloads.fight import Overlapped
from bench.workloads.table import WORKLOADS

_CONSOLE = Console(highlight=False, soft_wrap=True)


def _names(known: dict[str, object], kind: str) -> click.ParamType[tuple[str, ...]]:
    """Return a parameter type for known names, separated by commas."""

    class Names(click.ParamType[tuple[str, ...]]):
        name = kind

        def convert(
            self, value: object, param: click.Parameter | None, ctx: click.Context | None
        ) -> tuple[str, ...]:
            if isinstance(value, tuple):
                return value
            chosen = tuple(each.strip() for each in str(value).split(","))
            if unknown := [each for each in chosen if each not in known]:
                self.fail(f"no {kind}: {', '.join(unknown)}; there are {', '.join(known)}", param, ctx)
            return chosen

    return Names()


def _publish(found: results.Results, out: Path | None) -> None:
    """Write the page and the picture, or show the tables."""
    if out is None:
        click.echo(report.tables(found))
        return
    page, picture = out.with_suffix(".md"), out.with_suffix(".png")
    drawn = plot.draw(found, picture)
    report.write(found, page, picture=picture.name if drawn else "")
    _CONSOLE.print(f"written: {page}" + (f", {picture}" if drawn else ""))


@click.group()
def main() -> None:
    """Measure lockring and its peers side by side."""


def variants_in(text: str) -> tuple[str, ...]:
    """Return the variants in a list with commas; a name may have one itself, such as "100,000".

    Raises:
        click.BadParameter: no workload has such a variant.
    """
    every = {variant for workload in WORKLOADS.values() for variant in workload.peers}
    known = {variant.replace(", ", ","): variant for variant in every}
    pieces = [each.strip() for each in text.split(",") if each.strip()]
    found: list[str] = []
    while pieces:
        names = (",".join(pieces[:count]) for count in range(len(pieces), 0, -1))
        name = next((each for each in names if each in known), None)
        if name is None:
            raise click.BadParameter(f"there is no variant {pieces[0]!r}, but: {'; '.join(sorted(every))}")
        found.append(known[name])
        del pieces[: name.count(",") + 1]
    return tuple(found)


@main.command()
@click.option("--only", type=_names(dict(WORKLOADS), "workload"), help=f"Workloads: {', '.join(WORKLOADS)}.")
@click.option("--peers", type=_names(dict(PEERS), "peer"), help=f"Peers: {', '.join(PEERS)}.")
@click.option(
    "--variants",
    callback=lambda _, __, text: variants_in(text or ""),
    help="Variants to measure, separated by commas, such as 'one core,32'; by default all.",
)
@click.option("--rounds", type=click.IntRange(1, 100), help="How many rounds, instead of the scale's.")
@click.option(
    "--quick",
    "scale_name",
    flag_value="quick",
    help="A few minutes, one round: for a look, not for publication.",
)
@click.option(
    "--tiny", "scale_name", flag_value="tiny", help="As little as possible: a check that everything works."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Save the measurements in this file.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write OUT.md, between its markers, and OUT.png."
)
@click.option("--no-install", is_flag=True, help="Do not install servers that are missing.")
@click.option("--anyway", is_flag=True, help="Measure even if the machine is busy.")
def run(
    only: tuple[str, ...] | None,
    peers: tuple[str, ...] | None,
    variants: tuple[str, ...],
    rounds: int | None,
    scale_name: str | None,
    json_path: Path | None,
    out: Path | None,
    no_install: bool,
    anyway: bool,
) -> None:
    """Measure the workloads, and publish or show the figures."""
    name = scale_name or "full"
    scale = with_rounds(SCALES[name], rounds)
    ready = prepare(peers or tuple(PEERS), may_install=not no_install, say=_CONSOLE.print)
    for sentence in ready.left_out:
        _CONSOLE.print(f"[yellow]{sentence}[/yellow]")
    try:
        busy = check_quiet(anyway=anyway, say=_CONSOLE.print)
        steps = list(
            plan([WORKLOADS[each] for each in only or WORKLOADS], ready.peers, scale, variants=variants)
        )
        found = measure_all(steps, ready, name, scale, busy=busy, json=json_path, say=_CONSOLE.print)
    except (Busy, Overlapped) as error:
        raise click.ClickException(str(error)) from None
    for sentence in found.left_out[len(ready.left_out) :]:
        _CONSOLE.print(f"[red]{sentence}[/red]")
    _publish(found, out)


@main.command(name="report")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write OUT.md, between its markers, and OUT.png."
)
def report_command(files: tuple[Path, ...], out: Path | None) -> None:
    """Report earlier runs. If several measured the same, the last file counts."""
    try:
        found = results.merged([results.load(path) for path in files])
        _publish(found, out)
    except (msgspec.DecodeError, report.NoMarkers) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--no-install", is_flag=True, help="Only report what is installed.")
def install(no_install: bool) -> None:
    """Install the peers' servers from Debian's packages if possible, and report what is missing."""
    ready = prepare(tuple(PEERS), may_install=not no_install, say=_CONSOLE.print)
    for sentence in ready.left_out:
        _CONSOLE.print(sentence)
    _CONSOLE.print("can be measured: " + ", ".join(ready.peers))
    sys.exit(bool(ready.left_out))


@main.command()
@click.argument("command", type=click.Choice(["serve", "up"]))
@click.option(
    "--locks", type=click.IntRange(1), default=100_000, show_default=True, help="How many are held."
)
@click.option("--starts", type=click.IntRange(1), default=5, show_default=True, help="How many to measure.")
@click.option("--nodes", type=click.IntRange(1), default=3, show_default=True, help="Nodes of `up`.")
def restart(command: str, locks: int, starts: int, nodes: int) -> None:
    """Kill all processes of `lockring serve` or `lockring up` at once, and measure how soon the next ones grant."""
    for start in measure_restarts(command, locks=locks, starts=starts, nodes=nodes):
        click.echo(
            f"a free lock after {start.grant_s:.2f} s ({start.grant_cpu_s:.2f} s of processor time),"
            f" every slot after {start.all_s:.2f} s; {start.held} locks held"
        )
