"""The tree that the drill's workers clean, on a file system or in a bucket, and a writer that changes it at random."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any, Protocol

from lockring.clock import monotonic_ns

TOPS = 10
LEAVES_PER_MIDDLE = 50


class Tree(Protocol):
    """A tree whose folders are TOP/MIDDLE/LEAF."""

    def make(self, folders: list[str], filled: list[str]) -> None:
        """Make the leaves, and a file in those that are filled."""

    def write(self, folder: str, name: str) -> bool:
        """Write a file; returns whether it was written."""

    def erase(self, folder: str, name: str) -> None:
        """Erase a file."""

    def folders(self) -> set[str]:
        """All folders that are there, but the root."""

    def files(self) -> set[str]:
        """All files that are there."""


class LocalTree:
    """On a file system, where a write fails if its folder is gone."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)

    def make(self, folders: list[str], filled: list[str]) -> None:
        """See `Tree`."""
        for folder in folders:
            os.makedirs(f"{self.root}/{folder}")
        for folder in filled:
            self.write(folder, "first")

    def write(self, folder: str, name: str) -> bool:
        """See `Tree`."""
        try:
            os.close(os.open(f"{self.root}/{folder}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileNotFoundError:
            return False
        return True

    def erase(self, folder: str, name: str) -> None:
        """See `Tree`."""
        os.unlink(f"{self.root}/{folder}/{name}")

    def folders(self) -> set[str]:
        """See `Tree`."""
        cut = len(self.root) + 1
        return {path[cut:] for path, _, _ in os.walk(self.root)} - {""}

    def files(self) -> set[str]:
        """See `Tree`."""
        cut = len(self.root) + 1
        return {f"{path}/{name}"[cut:] for path, _, names in os.walk(self.root) for name in names}


class BucketTree:
    """In a bucket, where folders are markers, and a write succeeds whether there is one or not."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self.root = f"s3://{bucket}"
        self._s3 = s3
        self._bucket = bucket
        s3.create_bucket(Bucket=bucket)

    def make(self, folders: list[str], filled: list[str]) -> None:
        """See `Tree`."""
        above = sorted(
            {folder.rpartition("/")[0] for folder in folders} | {each.split("/")[0] for each in folders}
        )
        for folder in above + folders:
            self._put(f"{folder}/")
        for folder in filled:
            self._put(f"{folder}/first")

    def write(self, folder: str, name: str) -> bool:
        """See `Tree`."""
        self._put(f"{folder}/{name}")
        return True

    def erase(self, folder: str, name: str) -> None:
        """See `Tree`."""
        self._s3.delete_object(Bucket=self._bucket, Key=f"{folder}/{name}")

    def folders(self) -> set[str]:
        """See `Tree`: those with a marker."""
        return {key[:-1] for key in self._keys() if key.endswith("/")}

    def files(self) -> set[str]:
        """See `Tree`."""
        return {key for key in self._keys() if not key.endswith("/")}

    def _put(self, key: str) -> None:
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"")

    def _keys(self) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]


def leaves(count: int) -> list[str]:
    """So many folders that no other one is in, spread over tops and middles."""
    middles = max(1, count // LEAVES_PER_MIDDLE)
    return [f"t{number % TOPS}/m{number % middles}/leaf-{number}" for number in range(count)]


class Writer(threading.Thread):
    """Writes into folders at random, and erases some of it soon, until it is stopped.

    Attributes:
        stays: files that were written and must exist at the end.
        changes: by folder, for each change a time right before it.
        refused: how many writes were into folders that were gone.
    """

    def __init__(self, tree: Tree, folders: list[str], *, seed: int, pause_s: float) -> None:
        super().__init__(name="writer", daemon=True)
        self._tree = tree
        self._folders = folders
        self._rng = random.Random(seed)
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self.stays: set[str] = set()
        self.changes: dict[str, list[int]] = {}
        self.refused = 0
        self._refusals: set[tuple[str, int]] = set()
        self.written = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Write until stopped; what was begun is ended."""
        passing: list[tuple[str, str]] = []
        number = 0
        try:
            while not self._stopped.wait(self._pause_s):
                number += 1
                folder = self._rng.choice(self._folders)
                name = f"file-{number}"
                at_ns = self._note(folder)
                if not self._tree.write(folder, name):
                    self.refused += 1
                    self._refusals.add((folder, at_ns))
                    continue
                self.written += 1
                if self._rng.random() < 0.5:
                    self.stays.add(f"{folder}/{name}")
                else:
                    passing.append((folder, name))
                while len(passing) > 20:
                    self._erase(*passing.pop(self._rng.randrange(len(passing))))
            for each in passing:
                self._erase(*each)
        except BaseException as error:  # noqa: BLE001 - reported by the drill, which waits for this thread
            self.failure = error

    def stop(self) -> None:
        """End, once what was begun is ended."""
        self._stopped.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def was_refused(self, folder: str, at_ns: int) -> bool:
        """Whether the change at a time was none, since its folder was gone."""
        return (folder, at_ns) in self._refusals

    def _note(self, folder: str) -> int:
        now_ns = monotonic_ns()
        self.changes.setdefault(folder, []).append(now_ns)
        return now_ns

    def _erase(self, folder: str, name: str) -> None:
        self._note(folder)
        self._tree.erase(folder, name)
