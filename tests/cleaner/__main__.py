"""The drills of the cleaner at full size: `python -m tests.cleaner drill|s3|scan`."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.local import LocalStorage
from lockring.apps.cleaner.preview import preview
from lockring.testing import LocalCluster
from tests.cleaner.drill import BucketTree, Failed, LocalTree, Result, drill
from tests.s3_server import CREDENTIALS, client_of, s3_server


def local(count: int, seed: int, directory: Path) -> Result:
    """Three workers on a local tree."""
    with LocalCluster(nodes=2) as cluster:
        return drill(
            LocalTree(directory / "tree"),
            cluster.servers,
            directory,
            count=count,
            delay_s=5,
            scan_interval_s=20,
            pause_s=0.005,
            patience_s=400,
            seed=seed,
            say=print,
        )


def bucket(count: int, seed: int, directory: Path) -> Result:
    """Three workers on a bucket."""
    with s3_server() as url, LocalCluster(nodes=2) as cluster:
        return drill(
            BucketTree(client_of(url), "drill"),
            cluster.servers,
            directory,
            count=count,
            delay_s=5,
            scan_interval_s=10,
            pause_s=0.1,
            patience_s=600,
            seed=seed,
            environ=CREDENTIALS,
            options=("--endpoint-url", url, "--delete-markers"),
            say=print,
        )


def scan(count: int, root: Path) -> None:
    """Scan so many folders, and tell the rate and the memory; the tree is made if it is not there."""
    if not root.exists():
        make(count, root)
    storage = LocalStorage(str(root))
    storage.open()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = Tally()
    began_s = time.perf_counter()
    would_go = sum(1 for _ in preview(storage, Policy(), tally))
    took_s = time.perf_counter() - began_s
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{tally.seen} folders in {took_s:.1f} s, {tally.seen / took_s:.0f} folders/s, {would_go} empty; "
        f"peak memory {peak_kib / 1024:.0f} MiB, {(peak_kib - before_kib) / 1024:.1f} MiB of it for the scan"
    )


def make(count: int, root: Path) -> None:
    """Ten tops, each with middles of up to a thousand leaves."""
    made = 0
    for number in range(count // 1000 or 1):
        middle = root / f"t{number % 10}" / f"m{number}"
        middle.mkdir(parents=True)
        made += 1 + (number < 10)
        opened = os.open(middle, os.O_RDONLY)
        while made < (number + 1) * 1000 and made < count:
            os.mkdir(f"leaf-{made}", dir_fd=opened)
            made += 1
        os.close(opened)


def main() -> int:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.cleaner")
    parser.add_argument("what", choices=("drill", "s3", "scan"))
    parser.add_argument("--folders", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="of the tree to scan; made if it is not there")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="lockring-cleaner-"))
    try:
        if given.what == "scan":
            scan(given.folders or 1_000_000, given.root or directory / "tree")
            return 0
        run = local if given.what == "drill" else bucket
        result = run(given.folders or (20_000 if given.what == "drill" else 2_000), given.seed, directory)
        print(msgspec.json.encode(result).decode())
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
