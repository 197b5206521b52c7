"""A bucket, or a prefix of its keys, as a storage.

`s3_keys` defines what a folder is here, and when it is empty. Removing one means deleting its marker. A bucket
cannot do that "only if nothing else is there", so it takes steps:

1. The marker is read, with its metadata.
2. It is deleted if it is still the one that was read (`If-Match`, if the server supports that).
3. The folder is listed again. If it has an entry now, the marker is restored with its metadata, unless another
   client has written one in the meantime (`If-None-Match`).

So data written during a removal is never touched, and has its folder's marker afterwards. If the bucket cannot be
reached between 2 and 3, step 3 comes before anything else later. A worker that is killed between 2 and 3 may leave
such a folder without its marker; the folder itself exists because of its contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.words import FolderState, Reason
from lockring.apps.cleaner.s3_keys import Key, folders_of
from lockring.apps.cleaner.storage import FoundFolder
from lockring.errors import (
    ConfigError,
    Denied,
    ExtraMissing,
    InvalidRequest,
    LockringError,
    RootMissing,
    Unavailable,
)

SCHEME: Final = "s3://"

_METADATA: Final = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "Metadata",
    "SSEKMSKeyId",
    "ServerSideEncryption",
    "StorageClass",
    "WebsiteRedirectLocation",
)
"""The headers of a restored marker, besides its tags."""

_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_CHANGED: Final = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
_UNKNOWN: Final = frozenset({"501", "NotImplemented"})
_DENIED: Final = frozenset({"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401"})


class S3Storage:
    """See the module.

    Args:
        url: the root, as s3://BUCKET or s3://BUCKET/PREFIX.
        endpoint_url: of a server other than Amazon's.

    Raises:
        InvalidRequest: the URL has another form.
        ConfigError: boto3 is not installed, or its settings cannot be used.
    """

    implies_parents = True

    def __init__(self, url: str, *, endpoint_url: str = "") -> None:
        self.name = url
        self.restored = 0
        self._deleted: _Deletion | None = None
        bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
        if not url.startswith(SCHEME) or not bucket:
            raise InvalidRequest(
                f"invalid bucket {url!r}: expected s3://BUCKET or s3://BUCKET/PREFIX", name=url
            )
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        try:
            import boto3
            import botocore.exceptions
            from botocore.config import Config
        except ImportError as error:
            raise ExtraMissing(f"{url}: buckets need boto3 ({error}): install lockring[s3]") from None
        self._errors = botocore.exceptions
        config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "max_attempts": 3})
        try:
            session = boto3.session.Session()
            self._s3: Any = session.client(
                "s3",
                endpoint_url=endpoint_url or None,
                region_name=session.region_name or "us-east-1",
                config=config,
            )
        except (botocore.exceptions.BotoCoreError, ValueError) as error:
            raise ConfigError(f"{url}: {error}", name=url) from None

    def open(self) -> None:
        """See `Storage`. An empty prefix is a root like any other."""
        with self._explained():
            self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def close(self) -> None:
        """See `Storage`.

        Raises:
            Unavailable, Denied: it is unknown whether the last deleted marker must be restored.
        """
        try:
            self._settle()
        finally:
            self._s3.close()

    def scan(self, policy: Policy) -> Iterator[FoundFolder]:
        """See `Storage`."""
        return folders_of(self._keys(), policy)

    def _keys(self) -> Iterator[Key]:
        self._settle()
        cut = len(self._prefix)
        token: dict[str, str] = {}
        while True:
            with self._explained():
                page = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **token)
            for each in page.get("Contents", ()):
                if len(each["Key"]) > cut:  # else it is the root's own marker
                    yield Key(each["Key"][cut:], each["Size"], _stamp(each))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def look(self, folder: str, *, entries_max: int) -> FolderState | Reason:
        """See `Storage`. An unfinished multipart upload counts as an entry."""
        self._settle()
        key = self._key(folder)
        with self._explained():
            listed = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=entries_max + 1)
        found = listed.get("Contents", [])
        marker = next((each for each in found if each["Key"] == key), None)
        entries = len(found) - (1 if marker is not None and marker["Size"] == 0 else 0)
        if entries:
            return FolderState(min(entries, entries_max))
        try:
            if self._has_upload(key):
                return Reason.MULTIPART
        except Denied:
            return Reason.DENIED  # an upload may be in progress
        if marker is None:
            return Reason.GONE
        return FolderState(0, _stamp(marker), is_explicit=True)

    def _has_upload(self, key: str) -> bool:
        try:
            with self._explained():
                listed = self._s3.list_multipart_uploads(Bucket=self._bucket, Prefix=key, MaxUploads=1)
        except _NotImplementedThere:
            return False  # a server without such uploads
        return bool(listed.get("Uploads"))

    def remove(self, folder: str) -> Reason | None:
        """See `Storage`, and the steps in the module."""
        self._settle()
        key = self._key(folder)
        try:
            with self._explained():
                marker = self._s3.get_object(Bucket=self._bucket, Key=key)
                if marker["ContentLength"]:
                    return Reason.NOT_EMPTY
                tags = self._tags(key) if marker.get("TagCount") else ""
            # Set before the request: without an answer, the marker may have been deleted.
            self._deleted = _Deletion(key, marker, tags)
            if not self._delete(key, marker["ETag"]):
                self._deleted = None
                return Reason.WRITTEN
        except _Missing:
            self._deleted = None
            return Reason.GONE
        except Denied:
            self._deleted = None
            return Reason.DENIED
        return Reason.WRITTEN if self._settle() else None

    def _settle(self) -> bool:
        """Do step 3 for a deleted marker if that is outstanding; return whether the folder has an entry."""
        deleted = self._deleted
        if deleted is None:
            return False
        with self._explained():
            listed = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=deleted.key, MaxKeys=1)
        found = listed.get("Contents", ())
        if found and found[0]["Key"] != deleted.key:  # otherwise another client has written a newer marker
            self._put_back(deleted.key, deleted.marker, deleted.tags)
        self._deleted = None
        return bool(found)

    def _delete(self, key: str, etag: str) -> bool:
        """Delete a marker if it is unchanged, and return whether it was."""
        try:
            with self._explained():
                self._s3.delete_object(Bucket=self._bucket, Key=key, IfMatch=etag)
        except _Changed:
            return False
        except _NotImplementedThere:
            with self._explained():
                self._s3.delete_object(Bucket=self._bucket, Key=key)
        return True

    def _put_back(self, key: str, marker: dict[str, Any], tags: str) -> None:
        kept = {name: marker[name] for name in _METADATA if marker.get(name)}
        if tags:
            kept["Tagging"] = tags
        try:
            with self._explained():
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"", IfNoneMatch="*", **kept)
        except _Changed:
            return  # another client was quicker
        except _NotImplementedThere:
            with self._explained():
                self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"", **kept)
        self.restored += 1

    def _tags(self, key: str) -> str:
        from urllib.parse import urlencode

        tags = self._s3.get_object_tagging(Bucket=self._bucket, Key=key)["TagSet"]
        return urlencode([(each["Key"], each["Value"]) for each in tags])

    def _key(self, folder: str) -> str:
        assert folder, "the root itself is never inspected or removed"
        return f"{self._prefix}{folder}/"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn boto3's exceptions into lockring's."""
        errors = self._errors
        try:
            yield
        except errors.ClientError as error:
            raise self._refused(error) from error
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
            raise Denied(f"{self.name}: {error}", name=self.name) from error
        except errors.BotoCoreError as error:
            raise Unavailable(f"{self.name} cannot be reached: {error}", name=self.name) from error

    def _refused(self, error: Any) -> LockringError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        text = f"{self.name}: {error}"
        if code == "NoSuchBucket":
            return RootMissing(f"{self.name}: there is no such bucket", name=self.name)
        if code in _DENIED:
            return Denied(f"{self.name}: no permission: {error}", name=self.name)
        for codes, kind in ((_MISSING, _Missing), (_CHANGED, _Changed), (_UNKNOWN, _NotImplementedThere)):
            if code in codes or status in codes:
                return kind(text, name=self.name)
        return Unavailable(text, name=self.name)


class _Deletion(NamedTuple):
    """A marker that was, or may have been, deleted and whose folder was not yet listed again."""

    key: str
    marker: dict[str, Any]
    tags: str


class _Missing(Unavailable):
    """The object does not exist."""

    code = "s3-missing"


class _Changed(Unavailable):
    """A condition no longer holds: the object was replaced."""

    code = "s3-changed"


class _NotImplementedThere(Unavailable):
    """The server does not support the request."""

    code = "s3-not-implemented"


def _stamp(each: dict[str, Any]) -> str:
    """Return a text that changes whenever an object is written, as far as the server shows it."""
    return f"{each['ETag']} {each['LastModified'].isoformat()}"
