"""Buckets: what a folder is there, and that nothing is lost that is written while a marker is deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.core.words import FolderState, Reason
from lockring.apps.cleaner.preview import preview
from lockring.apps.cleaner.s3 import S3Storage
from lockring.apps.cleaner.s3_keys import Key, folders_of
from lockring.errors import InvalidRequest, RootMissing, Unavailable
from tests.processes import address
from tests.unit.apps.conftest import PAGE_KEYS, Bucket

# ------------------------------------------------------------------- from keys to folders


def folders(*names: str, policy: Policy | None = None) -> dict[str, FolderState | Reason]:
    keys = [Key(name, 0, "s") for name in sorted(names, key=str.encode)]
    return {each.folder: each.look for each in folders_of(keys, policy or Policy())}


def test_a_folder_is_empty_if_only_its_marker_is_there() -> None:
    assert folders("a/", "b/", "b/file", "c/d/file") == {
        "a": FolderState(0, "s", True),
        "b": FolderState(1, "s", True),
        "c/d": FolderState(1, ""),
        "c": FolderState(1, ""),
    }


def test_a_marker_with_content_is_data() -> None:
    assert [each.look for each in folders_of([Key("a/", 3, "s")], Policy())] == [FolderState(1, "")]


def test_names_that_sort_between_a_folder_and_its_contents_change_nothing() -> None:
    assert folders("a/", "a-b/x", "a/b/", "a.txt", "a0/") == {
        "a-b": FolderState(1, ""),
        "a/b": FolderState(0, "s", True),
        "a": FolderState(1, "s", True),
        "a0": FolderState(0, "s", True),
    }


def test_a_kept_folder_is_found_once_with_everything_below() -> None:
    policy = Policy(is_kept=lambda folder: folder == "a/keep")
    assert folders("a/keep/x/", "a/keep/y/", "a/z/", policy=policy) == {
        "a/keep": Reason.PATTERN,
        "a/z": FolderState(0, "s", True),
        "a": FolderState(2, ""),
    }


names = st.lists(st.sampled_from(["a", "b", "a-", "b.x"]), min_size=1, max_size=4).map("/".join)


@given(st.sets(st.tuples(names, st.booleans()), max_size=30))
def test_one_pass_finds_what_a_tree_of_dictionaries_would(objects: set[tuple[str, bool]]) -> None:
    keys = {name + "/" if is_marker else name for name, is_marker in objects}
    tree: dict[str, set[str]] = {}
    for key in keys:
        parts = key.rstrip("/").split("/") if key.endswith("/") else key.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            tree.setdefault(folder, set())
            if depth < len(parts):
                tree[folder].add(parts[depth] + "/")
        if not key.endswith("/") and parts:
            tree["/".join(parts)].add(key.rsplit("/", 1)[1])
    found = folders(*keys)
    assert {folder: look.entries for folder, look in found.items() if isinstance(look, FolderState)} == {
        folder: len(content) for folder, content in tree.items()
    }
    order = list(found)
    assert all(
        order.index(each) > order.index(inner)
        for each in order
        for inner in order
        if inner.startswith(each + "/")
    )


# --------------------------------------------------------------------------- on a server


def opened(bucket: Bucket, prefix: str = "") -> S3Storage:
    storage = S3Storage(f"s3://{bucket.name}/{prefix}", endpoint_url=bucket.endpoint_url)
    storage.open()
    return storage


def test_a_marker_alone_is_removed(bucket: Bucket) -> None:
    bucket.put("root/a/", "root/a/b/", "other/")
    storage = opened(bucket, "root")
    look = storage.look("a/b", entries_max=1)
    assert isinstance(look, FolderState) and look.is_explicit and look.entries == 0
    assert storage.look("a", entries_max=1) == FolderState(1)
    assert storage.remove("a/b") is None
    assert bucket.keys() == ["other/", "root/a/"]
    assert storage.look("a/b", entries_max=1) is Reason.GONE
    assert storage.remove("a/b") is Reason.GONE
    storage.close()


def test_a_scan_and_a_look_agree_on_the_stamp(bucket: Bucket) -> None:
    bucket.put("a/b/")
    storage = opened(bucket)
    scanned = {each.folder: each.look for each in storage.scan(Policy())}
    assert scanned["a/b"] == storage.look("a/b", entries_max=1)
    storage.close()


def test_markers_are_kept_by_default_and_parents_without_a_marker_vanish_by_themselves(
    bucket: Bucket,
) -> None:
    bucket.put("top/", "top/a/", "top/a/b/c/", "top/d/file")
    storage = opened(bucket)
    tally = Tally()
    assert list(preview(storage, Policy(), tally)) == []
    assert tally.kept == {"not empty": 4, "explicit marker": 1}
    assert list(preview(storage, Policy(markers=True), Tally())) == ["top/a/b/c", "top/a"]
    storage.close()


def test_more_keys_than_fit_on_a_page_are_all_found(bucket: Bucket) -> None:
    for number in range(2 * PAGE_KEYS + 1):
        bucket.put(f"a/{number:04}/")
    storage = opened(bucket)
    assert sum(1 for _ in storage.scan(Policy())) == 2 * PAGE_KEYS + 2
    storage.close()


def test_a_folder_into_which_something_is_being_uploaded_in_parts_is_kept(bucket: Bucket) -> None:
    bucket.put("a/b/")
    bucket.s3.create_multipart_upload(Bucket=bucket.name, Key="a/b/large")
    storage = opened(bucket)
    assert storage.look("a/b", entries_max=1) is Reason.MULTIPART
    storage.close()


class Between:
    """A client that lets something happen right after, or before, an operation of the storage."""

    def __init__(
        self,
        s3: Any,
        operation: str,
        *,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._s3 = s3
        self._operation = operation
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._s3, name)
        if name != self._operation:
            return method

        def call(**arguments: Any) -> Any:
            if self._before is not None:
                self._before()
            answer = method(**arguments)
            if self._after is not None:
                self._after()
            return answer

        return call


@pytest.mark.parametrize("when", ["before", "after"])
def test_objects_written_during_a_removal_stay_and_the_marker_is_restored_with_its_metadata(
    bucket: Bucket, when: str
) -> None:
    bucket.put(
        "a/b/", ContentType="application/x-directory", Metadata={"made-by": "hand"}, Tagging="team=x&y=z"
    )
    storage = opened(bucket)
    step: dict[str, Any] = {when: lambda: bucket.put("a/b/new")}
    storage._s3 = Between(storage._s3, "delete_object", **step)
    assert storage.remove("a/b") is Reason.WRITTEN
    assert bucket.keys() == ["a/b/", "a/b/new"]
    marker = bucket.s3.head_object(Bucket=bucket.name, Key="a/b/")
    assert marker["ContentType"] == "application/x-directory"
    assert marker["Metadata"] == {"made-by": "hand"}
    tags = bucket.s3.get_object_tagging(Bucket=bucket.name, Key="a/b/")["TagSet"]
    assert {each["Key"]: each["Value"] for each in tags} == {"team": "x", "y": "z"}
    assert storage.restored == 1
    storage.close()


def test_a_marker_that_was_written_again_with_content_is_not_deleted(bucket: Bucket) -> None:
    bucket.put("a/b/")

    def write() -> None:
        bucket.s3.put_object(Bucket=bucket.name, Key="a/b/", Body=b"data")

    storage = opened(bucket)
    storage._s3 = Between(storage._s3, "delete_object", before=write)
    assert storage.remove("a/b") is Reason.WRITTEN
    assert bucket.s3.get_object(Bucket=bucket.name, Key="a/b/")["Body"].read() == b"data"
    assert storage.remove("a/b") is Reason.NOT_EMPTY
    storage.close()


def test_a_marker_that_another_program_has_rewritten_is_left_alone(bucket: Bucket) -> None:
    bucket.put("a/b/", Metadata={"by": "us"})

    def write() -> None:
        bucket.put("a/b/", Metadata={"by": "them"})
        bucket.put("a/b/new")

    storage = opened(bucket)
    storage._s3 = Between(storage._s3, "delete_object", after=write)
    assert storage.remove("a/b") is Reason.WRITTEN
    assert bucket.s3.head_object(Bucket=bucket.name, Key="a/b/")["Metadata"] == {"by": "them"}
    assert storage.restored == 0
    storage.close()


@pytest.mark.parametrize("cut", ["list_objects_v2", "put_object", "answer"])
def test_a_marker_is_restored_even_if_the_bucket_is_unreachable_after_the_deletion(
    bucket: Bucket, cut: str
) -> None:
    """Cut one request off after the deletion: the second look, the restoration, or the answer to the deletion."""
    from botocore.exceptions import EndpointConnectionError

    bucket.put("a/b/", Metadata={"by": "us"})
    storage = opened(bucket)
    s3, cuts = storage._s3, 1

    def fail() -> None:
        nonlocal cuts
        if cuts:
            cuts = 0
            raise EndpointConnectionError(endpoint_url="http://gone")

    def written() -> None:
        bucket.put("a/b/new")
        if cut == "answer":
            fail()
        else:
            storage._s3 = Between(s3, cut, before=fail)

    storage._s3 = Between(s3, "delete_object", after=written)
    with pytest.raises(Unavailable, match="cannot be reached"):
        storage.remove("a/b")
    assert bucket.keys() == ["a/b/new"]
    assert storage.look("a/c", entries_max=1) is Reason.GONE
    assert bucket.keys() == ["a/b/", "a/b/new"]
    assert bucket.s3.head_object(Bucket=bucket.name, Key="a/b/")["Metadata"] == {"by": "us"}
    assert storage.restored == 1
    storage.close()


def test_a_marker_that_could_not_be_checked_is_restored_at_the_end(bucket: Bucket) -> None:
    from botocore.exceptions import EndpointConnectionError

    bucket.put("a/b/")
    storage = opened(bucket)
    s3 = storage._s3

    def written() -> None:
        bucket.put("a/b/new")
        raise EndpointConnectionError(endpoint_url="http://gone")

    storage._s3 = Between(s3, "delete_object", after=written)
    with pytest.raises(Unavailable):
        storage.remove("a/b")
    storage.close()
    assert bucket.keys() == ["a/b/", "a/b/new"]


def test_a_missing_bucket_and_a_silent_server_give_different_errors(
    bucket: Bucket,
) -> None:
    missing = S3Storage("s3://no-such-bucket/x", endpoint_url=bucket.endpoint_url)
    with pytest.raises(RootMissing, match="no such bucket"):
        missing.open()
    missing.close()
    unreachable = S3Storage("s3://bucket", endpoint_url=f"http://{address()}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        unreachable.open()
    unreachable.close()


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "bucket"])
def test_an_invalid_bucket_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="s3://BUCKET"):
        S3Storage(url)
