"""The drill of the cleaner, small: several workers over one tree, one killed and one joining on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockring.testing import LocalCluster
from tests.cleaner.drill import BucketTree, LocalTree, drill
from tests.s3_server import CREDENTIALS, client_of, s3_server

pytestmark = pytest.mark.cluster


def test_workers_share_a_tree_and_lose_nothing_though_one_is_killed_and_one_joins(tmp_path: Path) -> None:
    with LocalCluster(nodes=2) as cluster:
        result = drill(
            LocalTree(tmp_path / "tree"),
            cluster.servers,
            tmp_path,
            count=1500,
            delay_s=1,
            scan_interval_s=4,
            pause_s=0.005,
            patience_s=100,
        )
    assert result.deleted > 700
    assert result.unconfirmed <= 1, "only the killed worker may have removed a folder without saying so"
    assert len(result.by_worker) >= 3
    assert result.stays > 10


def test_workers_share_a_bucket_alike(tmp_path: Path) -> None:
    with s3_server() as url, LocalCluster(nodes=2) as cluster:
        result = drill(
            BucketTree(client_of(url), "drill"),
            cluster.servers,
            tmp_path,
            count=200,
            delay_s=1,
            scan_interval_s=2,
            pause_s=0.1,
            patience_s=110,
            environ=CREDENTIALS,
            options=("--endpoint-url", url, "--delete-markers"),
        )
    assert result.deleted > 90
    assert result.unconfirmed <= 1
