"""`python -m tests.sim.scale --nodes 1000 --clients 100000`: print what a cluster of that size sends and computes."""

from __future__ import annotations

import argparse

from tests.sim.scale.cluster import shared_memory
from tests.sim.scale.measures import measured

MB = 1_000_000


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.scale", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=100_000)
    arguments = parser.parse_args()
    with shared_memory():
        figures = measured(arguments.nodes, arguments.clients)
    print(
        f"{'':44} {'seconds':>8} {'sent, MB':>9} {'decided, MB':>12} {'writes':>7} {'reads':>6} {'CPU, ms':>8}"
    )
    for each in (figures.forming, figures.resting, figures.joining, figures.clients):
        print(
            f"{each.phase:44} {each.seconds:8.1f} {each.sent / MB:9.2f} {each.decided / MB:12.2f}"
            f" {each.writes:7} {each.reads:6} {each.processor_ms:8.0f}"
        )
    print(f"{'an idle second of the coordinator alone':44} {figures.idle_ms:61.1f}")


main()
