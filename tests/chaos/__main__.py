"""`python -m tests.chaos --minutes 10 --seed 7`: chaos over real processes, from a shell.

Exit code 1 if something was found.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from pathlib import Path

import msgspec

from lockring.server.lifecycle import die_with_parent
from tests.chaos.kinds import KINDS
from tests.chaos.links import LinksFailed
from tests.chaos.report import table
from tests.chaos.run import Options, Run
from tests.stores.servers import ServerFailed


def _minutes(text: str) -> float:
    """Some time, and not forever."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of minutes")
    return minutes


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=10.0, help="how long to do faults (default: 10)")
    parser.add_argument("--seed", type=int, help="what to draw everything from (default: a new one)")
    parser.add_argument(
        "--links", choices=("auto", "netns", "proxy"), default="auto", help="how links are cut"
    )
    parser.add_argument("--nodes", type=int, default=4, help="how many nodes to begin with (default: 4)")
    parser.add_argument(
        "--only", default="", help="kinds of faults, separated by commas: " + ", ".join(KINDS)
    )
    parser.add_argument(
        "--overlap", type=float, default=0.25, help="share of faults with a second one on top"
    )
    parser.add_argument(
        "--store",
        choices=("auto", "none", "etcd", "postgresql"),
        default="auto",
        help="what three coordinators share; none: one coordinator (default: drawn from the seed)",
    )
    parser.add_argument(
        "--durability",
        choices=("auto", "none", "process", "disk"),
        default="auto",
        help="what nodes keep in journals (default: process or disk, drawn from the seed)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    parser.add_argument("--directory", type=Path, help="keep logs and histories there")
    arguments = parser.parse_args()
    kinds = tuple(each.strip() for each in arguments.only.split(",")) if arguments.only else tuple(KINDS)
    if unknown := [each for each in kinds if each not in KINDS]:
        parser.error(f"no kind of fault: {', '.join(unknown)}")
    seed = random.SystemRandom().randrange(1_000_000) if arguments.seed is None else arguments.seed
    options = Options(
        minutes=arguments.minutes,
        seed=seed,
        links=arguments.links,
        nodes=arguments.nodes,
        kinds=kinds,
        overlap=arguments.overlap,
        store=arguments.store,
        durability=arguments.durability,
        directory=arguments.directory,
        say=lambda text: print(text, flush=True),
    )
    die_with_parent()
    # Where it is started in the background, this would be ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    print(f"seed {seed}, process {os.getpid()}", flush=True)
    try:
        with Run(options) as run:
            report = run.run()
    except (LinksFailed, ServerFailed) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(table(report))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
