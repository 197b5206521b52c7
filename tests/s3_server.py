"""A real S3 API server (moto's) on loopback, in a process of its own.

`python -m tests.s3_server` prints its URL and serves until its input ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def s3_server(*, page_keys: int = 1000) -> Iterator[str]:
    """Run the server; gives its URL.

    Args:
        page_keys: keys on a page of a list, if the request names no number.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | CREDENTIALS | {"MOTO_S3_DEFAULT_MAX_KEYS": str(page_keys)},
        text=True,
    ) as process:
        try:
            assert process.stdout is not None and process.stdin is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def client_of(url: str) -> Any:
    """A client of the server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


if __name__ == "__main__":
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(f"http://127.0.0.1:{server.get_host_and_port()[1]}", flush=True)
    sys.stdin.read()
